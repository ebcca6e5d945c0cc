// Reads ZIP archives with archive/zip. Each archive on stdin is its size (8 bytes, little-endian) and its bytes. For each
// archive, stdout gets a line of JSON: null if it is rejected, or {"files": {name: content}, "specials": [name]}, in hex.
package main

import (
	"archive/zip"
	"bufio"
	"bytes"
	"encoding/binary"
	"encoding/hex"
	"encoding/json"
	"io"
	"os"
)

type reading struct {
	Files    map[string]string `json:"files"`
	Specials []string          `json:"specials"`
}

func read(data []byte) *reading {
	archive, err := zip.NewReader(bytes.NewReader(data), int64(len(data)))
	if err != nil {
		return nil
	}
	found := &reading{map[string]string{}, []string{}}
	for _, file := range archive.File {
		name := hex.EncodeToString([]byte(file.Name))
		if mode := file.Mode(); mode.IsDir() {
			continue
		} else if !mode.IsRegular() && mode&os.ModeNamedPipe == 0 {
			found.Specials = append(found.Specials, name)
			continue
		}
		stream, err := file.Open()
		if err != nil {
			return nil
		}
		content, err := io.ReadAll(stream)
		if err != nil {
			return nil
		}
		found.Files[name] = hex.EncodeToString(content)
	}
	return found
}

func main() {
	input, output := bufio.NewReader(os.Stdin), bufio.NewWriter(os.Stdout)
	for {
		var size uint64
		if binary.Read(input, binary.LittleEndian, &size) != nil {
			return
		}
		data := make([]byte, size)
		if _, err := io.ReadFull(input, data); err != nil {
			os.Exit(1)
		}
		line, _ := json.Marshal(read(data))
		output.Write(append(line, '\n'))
		output.Flush()
	}
}
