/* The minimum cost of a transfer on this machine: read a file over TLS, hash it with SHA-256, write it over TLS, in one
   thread.

   floor CA SOURCE_PORT PATH SINK_PORT SIZE SHA256

   Each part of 16 MiB is an HTTP PUT. Prints "ready", waits for a line, and prints its usage as JSON. */

#include <arpa/inet.h>
#include <inttypes.h>
#include <netinet/tcp.h>
#include <openssl/evp.h>
#include <openssl/ssl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <time.h>

enum { CHUNK = 1 << 18, PART = 1 << 24, HEAD = 1 << 14 };

static void stop(const char *message) {
    fprintf(stderr, "floor: %s\n", message);
    exit(1);
}

static SSL *open_connection(SSL_CTX *context, int port) {
    int descriptor = socket(AF_INET, SOCK_STREAM, 0), on = 1;
    struct sockaddr_in address = {.sin_family = AF_INET, .sin_port = htons(port)};
    inet_pton(AF_INET, "127.0.0.1", &address.sin_addr);
    if (connect(descriptor, (struct sockaddr *)&address, sizeof address)) stop("cannot connect");
    setsockopt(descriptor, IPPROTO_TCP, TCP_NODELAY, &on, sizeof on);
    SSL *ssl = SSL_new(context);
    SSL_set_fd(ssl, descriptor);
    if (SSL_connect(ssl) != 1) stop("TLS handshake failed");
    return ssl;
}

static void send_all(SSL *ssl, const void *data, int count) {
    if (SSL_write(ssl, data, count) != count) stop("cannot write");
}

/* Reads the head of a response into `head`. Returns the number of body bytes that were read after it. */
static size_t read_head(SSL *ssl, char *head, char **body) {
    size_t count = 0;
    for (;;) {
        int got = SSL_read(ssl, head + count, (int)(HEAD - count));
        if (got <= 0) stop("the response ended early");
        head[count += got] = 0;
        if ((*body = strstr(head, "\r\n\r\n"))) {
            *body += 4;
            if (strncmp(head, "HTTP/1.1 2", 10)) stop(head);
            return count - (*body - head);
        }
    }
}

static double now(void) {
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return t.tv_sec + t.tv_nsec / 1e9;
}

static long read_peak(void) {
    char line[256];
    long peak = 0;
    FILE *status = fopen("/proc/self/status", "r");
    while (status && fgets(line, sizeof line, status)) sscanf(line, "VmHWM: %ld", &peak);
    if (status) fclose(status);
    return peak * 1024;
}

int main(int count, char **arguments) {
    if (count != 7) return 2;
    puts("ready");
    fflush(stdout);
    getchar();
    uint64_t size = strtoull(arguments[5], NULL, 10), position = 0;
    double started = now();
    long before = read_peak();
    SSL_CTX *context = SSL_CTX_new(TLS_client_method());
    if (SSL_CTX_load_verify_locations(context, arguments[1], NULL) != 1) stop("cannot load the CA certificate");
    SSL_CTX_set_verify(context, SSL_VERIFY_PEER, NULL);
    SSL *source = open_connection(context, atoi(arguments[2])), *sink = open_connection(context, atoi(arguments[4]));

    static char chunk[CHUNK], head[HEAD + 1];
    char *body;
    snprintf(head, sizeof head, "GET %s HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n", arguments[3]);
    send_all(source, head, (int)strlen(head));
    size_t filled = read_head(source, head, &body);
    memcpy(chunk, body, filled);

    EVP_MD_CTX *hash = EVP_MD_CTX_new();
    EVP_DigestInit_ex(hash, EVP_sha256(), NULL);
    for (int part = 1; position < size; part++) {
        uint64_t left = size - position < PART ? size - position : PART;
        snprintf(head, sizeof head,
                 "PUT /models/key?partNumber=%d&uploadId=1 HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Length: %" PRIu64
                 "\r\n\r\n",
                 part, left);
        send_all(sink, head, (int)strlen(head));
        while (left) {
            size_t want = left < CHUNK ? left : CHUNK;
            while (filled < want) {
                int got = SSL_read(source, chunk + filled, (int)(want - filled));
                if (got <= 0) stop("the source ended early");
                filled += got;
            }
            EVP_DigestUpdate(hash, chunk, want);
            send_all(sink, chunk, (int)want);
            filled = 0;
            left -= want;
            position += want;
        }
        read_head(sink, head, &body);
    }
    unsigned char digest[EVP_MAX_MD_SIZE];
    EVP_DigestFinal_ex(hash, digest, NULL);
    char found[65];
    for (int i = 0; i < 32; i++) sprintf(found + 2 * i, "%02x", digest[i]);
    if (strcmp(found, arguments[6])) stop("the digest does not match");

    struct rusage usage;
    getrusage(RUSAGE_SELF, &usage);
    printf("{\"seconds\": %f, \"user_seconds\": %f, \"system_seconds\": %f, \"rss_before\": %ld, "
           "\"peak_rss\": %ld, \"written\": 0, \"disk\": 0}\n",
           now() - started, usage.ru_utime.tv_sec + usage.ru_utime.tv_usec / 1e6,
           usage.ru_stime.tv_sec + usage.ru_stime.tv_usec / 1e6, before, read_peak());
    return 0;
}
