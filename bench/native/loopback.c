/* A low-overhead loopback TLS server: a Hub with one generated file, and a minimal S3 for uploads.

   loopback CERT KEY BLOCK SIZE ETAG COMMIT MODEL_JSON TREE_JSON LATENCY_MS RATE CONNECTION_RATE

   It prints its port as a line of JSON, serves until its standard input ends, and then prints its counts as a second
   line. The generated file consists of the 1 MiB in BLOCK, repeated to SIZE bytes, with the number of each block in its
   first 8 bytes. Uploads are counted and discarded, all as one object; signatures and checksums are ignored. Each
   response is delayed by LATENCY_MS, and a new connection by twice that. RATE is the limit of all connections together
   in bytes per second and direction, CONNECTION_RATE the limit of each connection; 0 is unlimited.

   TLS 1.3 with AES-128-GCM, as S3 and CloudFront choose. */

#include <inttypes.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <openssl/ssl.h>
#include <pthread.h>
#include <signal.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

enum { BLOCK = 1 << 20, SHAPED_CHUNK = 1 << 16, HEAD = 1 << 14 };

/* When the next byte may pass, in seconds of the monotonic clock. */
typedef struct { double rate, next; pthread_mutex_t lock; } Shaper;

typedef struct {
    SSL *ssl;
    Shaper down, up;
    char head[HEAD + 1];
    size_t kept; /* bytes in `head` that were read after the last request */
    char *chunk;
} Connection;

static unsigned char block[BLOCK];
static const char *etag, *commit_id, *model_json, *tree_json;
static uint64_t size;
static double latency, connection_rate;
static Shaper down = {.lock = PTHREAD_MUTEX_INITIALIZER}, up = {.lock = PTHREAD_MUTEX_INITIALIZER};
static SSL_CTX *context;
static atomic_ullong requests, connections, received, sent;

static double now(void) {
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return t.tv_sec + t.tv_nsec / 1e9;
}

static void sleep_for(double seconds) {
    if (seconds <= 0) return;
    struct timespec t = {(time_t)seconds, (long)((seconds - (time_t)seconds) * 1e9)};
    nanosleep(&t, NULL);
}

static void pass(Shaper *shaper, size_t count) {
    if (shaper->rate <= 0) return;
    pthread_mutex_lock(&shaper->lock);
    double at = now();
    if (shaper->next < at - 0.05) shaper->next = at - 0.05; /* compensates late wake-ups */
    shaper->next += count / shaper->rate;
    double wait = shaper->next - at;
    pthread_mutex_unlock(&shaper->lock);
    sleep_for(wait);
}

static size_t limit_chunk(size_t count) {
    int shaped = down.rate > 0 || up.rate > 0 || connection_rate > 0;
    size_t limit = shaped ? SHAPED_CHUNK : BLOCK;
    return count < limit ? count : limit;
}

static int send_all(Connection *c, const void *data, size_t count) { return SSL_write(c->ssl, data, (int)count) > 0; }

static int respond(Connection *c, const char *format, ...) {
    char text[4096];
    va_list arguments;
    va_start(arguments, format);
    int count = vsnprintf(text, sizeof text, format, arguments);
    va_end(arguments);
    sleep_for(latency);
    return count < (int)sizeof text && send_all(c, text, count);
}

static int respond_body(Connection *c, const char *type, const char *body) {
    return respond(c, "HTTP/1.1 200 OK\r\nContent-Type: %s\r\nX-Repo-Commit: %s\r\nContent-Length: %zu\r\n\r\n%s", type,
                  commit_id, strlen(body), body);
}

/* Returns the value of a header, or NULL. `name` includes the colon. */
static const char *find_header(const char *head, const char *name) {
    for (const char *line = strstr(head, "\r\n"); line; line = strstr(line, "\r\n")) {
        line += 2;
        if (!strncasecmp(line, name, strlen(name))) {
            line += strlen(name);
            return line + strspn(line, " ");
        }
    }
    return NULL;
}

/* Reads at least until `end` is in c->head. Returns the size up to and including `end`, or 0 if it was not found. */
static size_t read_to(Connection *c, const char *end) {
    for (;;) {
        c->head[c->kept] = 0;
        char *found = strstr(c->head, end);
        if (found) return found + strlen(end) - c->head;
        if (c->kept == HEAD) return 0;
        int count = SSL_read(c->ssl, c->head + c->kept, (int)(HEAD - c->kept));
        if (count <= 0) return 0;
        c->kept += count;
    }
}

static int discard_body(Connection *c, uint64_t left) {
    uint64_t here = c->kept < left ? c->kept : left;
    c->kept -= here;
    memmove(c->head, c->head + here, c->kept);
    for (left -= here; left;) {
        int count = SSL_read(c->ssl, c->chunk, (int)limit_chunk(left));
        if (count <= 0) return 0;
        pass(&up, count);
        pass(&c->up, count);
        left -= count;
    }
    return 1;
}

/* boto3 sends bodies with trailing checksums as chunks: https://www.rfc-editor.org/rfc/rfc9112#section-7.1 */
static int discard_chunks(Connection *c) {
    for (;;) {
        size_t line = read_to(c, "\r\n");
        if (!line) return 0;
        uint64_t count = strtoull(c->head, NULL, 16);
        if (!discard_body(c, line + count + 2)) return 0;
        if (!count) return 1;
    }
}

static int send_file(Connection *c, const char *range, int body) {
    uint64_t start = 0, last = size - 1;
    if (range) sscanf(range, "bytes=%" SCNu64 "-%" SCNu64, &start, &last);
    if (last >= size) last = size - 1;
    if (!respond(c,
                "HTTP/1.1 %s\r\nContent-Type: application/octet-stream\r\nAccept-Ranges: bytes\r\nETag: \"%s\"\r\n"
                "X-Repo-Commit: %s\r\nContent-Range: bytes %" PRIu64 "-%" PRIu64 "/%" PRIu64
                "\r\nContent-Length: %" PRIu64 "\r\n\r\n",
                range ? "206 Partial Content" : "200 OK", etag, commit_id, start, last, size, last + 1 - start))
        return 0;
    memcpy(c->chunk, block, BLOCK);
    while (body && start <= last) {
        uint64_t index = start / BLOCK, position = start % BLOCK, count = BLOCK - position;
        for (int i = 0; i < 8; i++) c->chunk[i] = (char)(index >> (56 - 8 * i));
        if (count > last + 1 - start) count = last + 1 - start;
        count = limit_chunk(count);
        pass(&down, count);
        pass(&c->down, count);
        if (!send_all(c, c->chunk + position, count)) return 0;
        start += count;
        sent += count;
    }
    return 1;
}

static int serve_request(Connection *c, size_t head_size) {
    char head[HEAD + 1], method[8], target[2048];
    memcpy(head, c->head, head_size);
    head[head_size] = 0;
    c->kept -= head_size;
    memmove(c->head, c->head + head_size, c->kept);
    if (sscanf(head, "%7s %2047s", method, target) != 2) return 0;
    requests++;
    const char *length = find_header(head, "Content-Length:");
    const char *decoded = find_header(head, "X-Amz-Decoded-Content-Length:");
    uint64_t body = length ? strtoull(length, NULL, 10) : 0;
    const char *expect = find_header(head, "Expect:");
    if (expect && !strncasecmp(expect, "100-continue", 12) && !respond(c, "HTTP/1.1 100 Continue\r\n\r\n")) return 0;
    if (!(find_header(head, "Transfer-Encoding:") ? discard_chunks(c) : discard_body(c, body))) return 0;
    if (strstr(target, "/resolve/")) return send_file(c, find_header(head, "Range:"), strcmp(method, "HEAD"));
    if (!strncmp(target, "/api/models/", 12)) return respond_body(c, "application/json", strstr(target, "/tree/") ? tree_json : model_json);
    if (!strcmp(method, "PUT")) {
        received += decoded ? strtoull(decoded, NULL, 10) : body;
        return respond(c, "HTTP/1.1 200 OK\r\nETag: \"%032d\"\r\nContent-Length: 0\r\n\r\n", 0);
    }
    if (!strcmp(method, "POST"))
        return respond_body(c, "application/xml",
                           strstr(target, "uploadId=")
                               ? "<CompleteMultipartUploadResult><ETag>&quot;0-1&quot;</ETag>"
                                 "</CompleteMultipartUploadResult>"
                               : "<InitiateMultipartUploadResult><UploadId>1</UploadId></InitiateMultipartUploadResult>");
    return respond(c, "HTTP/1.1 200 OK\r\nETag: \"%032d\"\r\nContent-Length: %llu\r\n\r\n", 0, received);
}

static void *serve_connection(void *argument) {
    int descriptor = (int)(intptr_t)argument, on = 1;
    setsockopt(descriptor, IPPROTO_TCP, TCP_NODELAY, &on, sizeof on);
    Connection *c = calloc(1, sizeof *c);
    c->chunk = malloc(BLOCK);
    c->down.rate = c->up.rate = connection_rate;
    pthread_mutex_init(&c->down.lock, NULL);
    pthread_mutex_init(&c->up.lock, NULL);
    c->ssl = SSL_new(context);
    SSL_set_fd(c->ssl, descriptor);
    sleep_for(2 * latency);
    if (SSL_accept(c->ssl) == 1) {
        connections++;
        size_t head_size;
        while ((head_size = read_to(c, "\r\n\r\n")) && serve_request(c, head_size)) continue;
    }
    SSL_free(c->ssl);
    close(descriptor);
    free(c->chunk);
    free(c);
    return NULL;
}

static void *accept_connections(void *argument) {
    int listener = (int)(intptr_t)argument;
    for (;;) {
        int descriptor = accept(listener, NULL, NULL);
        if (descriptor < 0) continue;
        pthread_t thread;
        if (pthread_create(&thread, NULL, serve_connection, (void *)(intptr_t)descriptor)) close(descriptor);
        else pthread_detach(thread);
    }
    return NULL;
}

int main(int count, char **arguments) {
    if (count != 12) return 2;
    FILE *file = fopen(arguments[3], "rb");
    if (!file || fread(block, 1, BLOCK, file) != BLOCK) return perror(arguments[3]), 1;
    fclose(file);
    size = strtoull(arguments[4], NULL, 10);
    etag = arguments[5], commit_id = arguments[6], model_json = arguments[7], tree_json = arguments[8];
    latency = atof(arguments[9]) / 1000;
    down.rate = up.rate = atof(arguments[10]);
    connection_rate = atof(arguments[11]);

    signal(SIGPIPE, SIG_IGN);
    context = SSL_CTX_new(TLS_server_method());
    SSL_CTX_set_options(context, SSL_OP_CIPHER_SERVER_PREFERENCE);
    SSL_CTX_set_read_ahead(context, 1);
    SSL_CTX_set_default_read_buffer_len(context, 1 << 17);
    if (!SSL_CTX_set_ciphersuites(context, "TLS_AES_128_GCM_SHA256") ||
        SSL_CTX_use_certificate_chain_file(context, arguments[1]) != 1 ||
        SSL_CTX_use_PrivateKey_file(context, arguments[2], SSL_FILETYPE_PEM) != 1)
        return fprintf(stderr, "cannot load the certificate\n"), 1;

    int listener = socket(AF_INET, SOCK_STREAM, 0);
    struct sockaddr_in address = {.sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    socklen_t length = sizeof address;
    if (bind(listener, (struct sockaddr *)&address, length) || listen(listener, 128) ||
        getsockname(listener, (struct sockaddr *)&address, &length))
        return perror("bind"), 1;
    printf("{\"port\": %d}\n", ntohs(address.sin_port));
    fflush(stdout);
    pthread_t thread;
    pthread_create(&thread, NULL, accept_connections, (void *)(intptr_t)listener);
    while (getchar() != EOF) continue;
    printf("{\"requests\": %llu, \"connections\": %llu, \"received\": %llu, \"sent\": %llu}\n", requests, connections,
           received, sent);
    fflush(stdout);
    _exit(0);
}
