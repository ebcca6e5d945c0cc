// Reads a model with @huggingface/hub, and prints what it found as JSON. Arguments: repository, path of a file,
// another repository that does not exist for the key.
import { readdir, readFile } from "node:fs/promises";
import { createHash } from "node:crypto";
import { join } from "node:path";
import { downloadFile, fileExists, listFiles, modelInfo, snapshotDownload, whoAmI } from "@huggingface/hub";

const [name, path, missing = "nobody/nothing"] = process.argv.slice(2);
const access = { hubUrl: process.env.HF_ENDPOINT, accessToken: process.env.HF_TOKEN };
const options = { ...access, repo: { type: "model", name } };

const sha256 = (content) => createHash("sha256").update(Buffer.from(content)).digest("hex");

async function readError(operation) {
	try {
		await operation();
		return null;
	} catch (error) {
		return { status: error.statusCode, message: error.message };
	}
}

const files = {};
for await (const entry of listFiles({ ...options, recursive: true, expand: true })) {
	if (entry.type === "file") files[entry.path] = entry.size;
}
const blob = await downloadFile({ ...options, path });
const folder = await snapshotDownload({ ...options, cacheDir: join(process.env.HF_HOME, "node") });
const snapshot = {};
for (const entry of await readdir(folder, { recursive: true, withFileTypes: true })) {
	if (entry.isDirectory()) continue;
	const file = join(entry.parentPath, entry.name);
	snapshot[file.slice(folder.length + 1)] = sha256(await readFile(file));
}
const found = {
	sha: (await modelInfo({ ...access, name, additionalFields: ["sha"] })).sha,
	files,
	exists: await fileExists({ ...options, path }),
	existsNot: await fileExists({ ...options, path: "absent.json" }),
	downloaded: sha256(await blob.arrayBuffer()),
	part: await blob.slice(4, 24).text(),
	absent: await downloadFile({ ...options, path: "absent.json" }),
	folder,
	snapshot,
	account: (await whoAmI(access)).name,
	wrongKey: await readError(() => downloadFile({ ...options, path, accessToken: "hf_" + "x".repeat(40) })),
	wrongModel: await readError(() => snapshotDownload({ ...options, repo: { type: "model", name: missing } })),
};
console.log(JSON.stringify(found));
