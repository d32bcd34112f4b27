/* A stand-in for nbdkit's plugin vddk (nbdkit-vddk-plugin(1)) and VMware's VDDK, for tests.
 *
 * It takes the parameters of the real one and no others, and serves the disk that the simulator says it means: from
 * libdir/fake.json it knows the simulator's control port, asks there to open the disk, and keeps that connection, so
 * that the simulator knows which disks are open.  What it was asked goes to libdir/log.  Like VDDK it serves whole
 * sectors only, and knows what is allocated in units of 64 KiB.
 */
#define _GNU_SOURCE
#define NBDKIT_API_VERSION 2
#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <nbdkit-plugin.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <unistd.h>

#define THREAD_MODEL NBDKIT_THREAD_MODEL_SERIALIZE_ALL_REQUESTS
#define SECTOR 512
#define CHUNK (64 << 10)
#define S(text) ((text) ? (text) : "")

enum { COMPRESSION, CONFIG, COOKIE, CREATE, CREATE_ADAPTER, CREATE_HW, CREATE_SIZE, CREATE_TYPE, DISK_FILE, LIBDIR, NFC_PORT,
       PORT, SERVER, SINGLE_LINK, SNAPSHOT, THUMBPRINT, TRANSPORTS, UNBUFFERED, USER, VIMAPIVER, VM, KEYS };

static const char *const names[KEYS] = { "compression", "config", "cookie", "create", "create-adapter-type",
    "create-hwversion", "create-size", "create-type", "file", "libdir", "nfchostport", "port", "server", "single-link",
    "snapshot", "thumbprint", "transports", "unbuffered", "user", "vimapiver", "vm" };

static char *values[KEYS];
static char *password;

struct handle {
    int fd;
    int simulator;
    uint64_t size;
};

/* Appends a line to libdir/log. */
static void note(const char *format, ...)
{
    char path[4096];
    va_list args;

    snprintf(path, sizeof path, "%s/log", values[LIBDIR]);
    FILE *log = fopen(path, "ae");
    if (!log)
        return;
    va_start(args, format);
    vfprintf(log, format, args);
    va_end(args);
    fputc('\n', log);
    fclose(log);
}

static int fake_config(const char *key, const char *value)
{
    if (strcmp(key, "password") == 0) {
        free(password);
        return nbdkit_read_password(value, &password);
    }
    for (int k = 0; k < KEYS; k++) {
        if (strcmp(key, names[k]) != 0)
            continue;
        free(values[k]);
        values[k] = k == LIBDIR ? nbdkit_realpath(value) : strdup(value);
        return values[k] ? 0 : -1;
    }
    nbdkit_error("unknown parameter '%s'", key);
    return -1;
}

static int fake_config_complete(void)
{
    if (!values[DISK_FILE]) {
        nbdkit_error("you must supply the file=<FILENAME> parameter after the plugin name on the command line");
        return -1;
    }
    if (!values[LIBDIR]) {
        nbdkit_error("libdir is missing: there is no VDDK in the default places");
        return -1;
    }
    if (!values[SERVER] || !values[USER] || !password || !values[VM]) {
        nbdkit_error("remote connection: you must specify server, user, password and vm");
        return -1;
    }
    if (strncmp(values[VM], "moref=", 6) != 0) {
        nbdkit_error("vm must be moref=<MOREF>");
        return -1;
    }
    return 0;
}

/* The number after "control": in libdir/fake.json. */
static int control_port(void)
{
    char path[4096], text[4096] = "";
    int port = 0;

    snprintf(path, sizeof path, "%s/fake.json", values[LIBDIR]);
    FILE *file = fopen(path, "re");
    if (!file) {
        nbdkit_error("%s: %m", path);
        return -1;
    }
    size_t n = fread(text, 1, sizeof text - 1, file);
    text[n] = 0;
    fclose(file);
    char *at = strstr(text, "\"control\":");
    if (!at || sscanf(at, "\"control\": %d", &port) != 1) {
        nbdkit_error("%s: no control port", path);
        return -1;
    }
    return port;
}

/* Appends name=value in the encoding of forms. */
static void add(FILE *form, const char *name, const char *value)
{
    fprintf(form, "%s=", name);
    for (const unsigned char *c = (const unsigned char *)value; *c; c++)
        fprintf(form, "%%%02X", *c);
    fputc('&', form);
}

static char *request(int readonly)
{
    char *body = NULL, *all = NULL;
    size_t length = 0;
    FILE *form = open_memstream(&body, &length);

    if (!form)
        return NULL;
    add(form, "user", values[USER]);
    add(form, "password", password);
    add(form, "thumbprint", S(values[THUMBPRINT]));
    add(form, "vm", values[VM]);
    add(form, "snapshot", S(values[SNAPSHOT]));
    add(form, "file", values[DISK_FILE]);
    add(form, "readonly", readonly ? "true" : "false");
    fclose(form);
    if (asprintf(&all, "POST /_ctl/vddk HTTP/1.0\r\nHost: localhost\r\nContent-Length: %zu\r\n\r\n%s", length, body) < 0)
        all = NULL;
    free(body);
    return all;
}

static int dial(int port)
{
    struct sockaddr_in to = { .sin_family = AF_INET, .sin_port = htons(port), .sin_addr.s_addr = htonl(INADDR_LOOPBACK) };
    int s = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);

    if (s >= 0 && connect(s, (struct sockaddr *)&to, sizeof to) < 0) {
        close(s);
        s = -1;
    }
    if (s < 0)
        nbdkit_error("VixDiskLib_ConnectEx: cannot connect to the server: %m");
    return s;
}

/* Reads the answer up to the end of the first line of its body; returns that line, in text. */
static char *answer(int s, char *text, size_t size, int *status)
{
    size_t n = 0;

    while (n + 1 < size) {
        ssize_t got = read(s, text + n, size - 1 - n);
        if (got <= 0)
            break;
        n += got;
        text[n] = 0;
        char *body = strstr(text, "\r\n\r\n");
        if (body && strchr(body + 4, '\n'))
            break;
    }
    text[n] = 0;
    char *body = strstr(text, "\r\n\r\n");
    if (!body || sscanf(text, "HTTP/%*s %d", status) != 1)
        return NULL;
    body += 4;
    body[strcspn(body, "\n")] = 0;
    return body;
}

static void *fake_open(int readonly)
{
    char text[8192];
    struct stat st;
    int status = 0, port = control_port();

    note("open server=%s port=%s vm=%s snapshot=%s file=%s readonly=%d transports=%s thumbprint=%s user=%s cookie=%s",
         values[SERVER], S(values[PORT]), values[VM], S(values[SNAPSHOT]), values[DISK_FILE], readonly, S(values[TRANSPORTS]),
         S(values[THUMBPRINT]), values[USER], S(values[COOKIE]));
    if (port < 0)
        return NULL;
    struct handle *h = calloc(1, sizeof *h);
    if (!h)
        return NULL;
    h->fd = -1;
    h->simulator = dial(port);
    if (h->simulator < 0)
        goto fail;
    char *ask = request(readonly);
    if (!ask || write(h->simulator, ask, strlen(ask)) < 0) {
        free(ask);
        goto fail;
    }
    free(ask);
    char *path = answer(h->simulator, text, sizeof text, &status);
    if (status != 200 || !path) {
        nbdkit_error("%s", path ? path : "VixDiskLib_ConnectEx: the server has closed the connection");
        goto fail;
    }
    h->fd = open(path, (readonly ? O_RDONLY : O_RDWR) | O_CLOEXEC);
    if (h->fd < 0 || fstat(h->fd, &st) < 0) {
        nbdkit_error("VixDiskLib_Open: %s: %m", values[DISK_FILE]);
        goto fail;
    }
    h->size = st.st_size / SECTOR * SECTOR;
    return h;
fail:
    if (h->fd >= 0)
        close(h->fd);
    if (h->simulator >= 0)
        close(h->simulator);
    free(h);
    return NULL;
}

static void fake_close(void *handle)
{
    struct handle *h = handle;

    note("close %s", values[DISK_FILE]);
    close(h->fd);
    close(h->simulator);
    free(h);
}

static int64_t fake_get_size(void *handle)
{
    return ((struct handle *)handle)->size;
}

static int fake_block_size(void *handle, uint32_t *minimum, uint32_t *preferred, uint32_t *maximum)
{
    *minimum = SECTOR;
    *preferred = 4096;
    *maximum = 0xffffffff;
    return 0;
}

/* Does a whole request, or fails. */
static int transfer(struct handle *h, char *buffer, uint32_t count, uint64_t offset, bool writes)
{
    note("%s %" PRIu32 "@%" PRIu64, writes ? "write" : "read", count, offset);
    if (count % SECTOR || offset % SECTOR) {
        nbdkit_error("%s is not aligned to sectors", writes ? "write" : "read");
        errno = EINVAL;
        return -1;
    }
    while (count > 0) {
        ssize_t n = writes ? pwrite(h->fd, buffer, count, offset) : pread(h->fd, buffer, count, offset);
        if (n <= 0) {
            nbdkit_error("VixDiskLib_%s: %m", writes ? "Write" : "Read");
            errno = EIO;
            return -1;
        }
        buffer += n;
        count -= n;
        offset += n;
    }
    return 0;
}

static int fake_pread(void *handle, void *buffer, uint32_t count, uint64_t offset, uint32_t flags)
{
    return transfer(handle, buffer, count, offset, false);
}

static int fake_pwrite(void *handle, const void *buffer, uint32_t count, uint64_t offset, uint32_t flags)
{
    return transfer(handle, (char *)buffer, count, offset, true);
}

static int fake_flush(void *handle, uint32_t flags)
{
    return fdatasync(((struct handle *)handle)->fd);
}

static int fake_can_extents(void *handle)
{
    return 1;
}

static int fake_extents(void *handle, uint32_t count, uint64_t offset, uint32_t flags, struct nbdkit_extents *extents)
{
    struct handle *h = handle;
    uint64_t end = offset + count, at = offset / CHUNK * CHUNK;

    while (at < end) {
        off_t data = lseek(h->fd, at, SEEK_DATA);
        uint64_t from = data < 0 ? h->size : (uint64_t)data / CHUNK * CHUNK;
        if (from > at && nbdkit_add_extent(extents, at, from - at, NBDKIT_EXTENT_HOLE | NBDKIT_EXTENT_ZERO) < 0)
            return -1;
        if (data < 0 || from >= end)
            break;
        uint64_t to = ((uint64_t)lseek(h->fd, data, SEEK_HOLE) + CHUNK - 1) / CHUNK * CHUNK;
        if (to > h->size)
            to = h->size;
        if (nbdkit_add_extent(extents, from, to - from, 0) < 0)
            return -1;
        at = to;
    }
    return 0;
}

static void fake_unload(void)
{
    for (int k = 0; k < KEYS; k++)
        free(values[k]);
    free(password);
}

static struct nbdkit_plugin plugin = {
    .name = "vddk",
    .longname = "a stand-in for VMware VDDK",
    .unload = fake_unload,
    .config = fake_config,
    .config_complete = fake_config_complete,
    .magic_config_key = "file",
    .open = fake_open,
    .close = fake_close,
    .get_size = fake_get_size,
    .block_size = fake_block_size,
    .pread = fake_pread,
    .pwrite = fake_pwrite,
    .flush = fake_flush,
    .can_extents = fake_can_extents,
    .extents = fake_extents,
    .errno_is_preserved = 1,
};

NBDKIT_REGISTER_PLUGIN(plugin)
