#define _POSIX_C_SOURCE 200809L
#include "bundle.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

// Of PKWARE's APPNOTE: the sizes of a zip archive's records.
enum { LOCAL = 30, ENTRY = 46, END = 22 };

static Bytes map(const char *path) {
    int file = open(path, O_RDONLY | O_NONBLOCK);
    struct stat status;
    if (file < 0 || fstat(file, &status) < 0) fail("%s cannot be opened: %s", path, strerror(errno));
    if (!S_ISREG(status.st_mode) || !status.st_size) fail("%s is empty, or no regular file", path);
    void *data = mmap(NULL, (size_t)status.st_size, PROT_READ, MAP_PRIVATE, file, 0);
    if (data == MAP_FAILED) fail("%s cannot be mapped: %s", path, strerror(errno));
    close(file);
    return (Bytes){data, (size_t)status.st_size};
}

Bundle bundle_open(const char *path) {
    struct stat status;
    if (stat(path, &status) < 0) fail("%s cannot be opened: %s", path, strerror(errno));
    if (S_ISDIR(status.st_mode)) return (Bundle){path, true, {0}};
    Bytes archive = map(path);
    if (archive.size < END || memcmp(archive.data, "PK\3\4", 4) != 0 ||
        memcmp(archive.data + archive.size - END, "PK\5\6", 4) != 0)
        fail("%s is neither a bundle's folder nor a whole .fmrt file", path);
    return (Bundle){path, false, archive};
}

// Names come from the manifest, which must not lead out of the bundle.
static void check_name(Bytes name) {
    bool leads_out = !name.size || name.data[0] == '/' || memchr(name.data, 0, name.size);
    for (size_t i = 0; i + 1 < name.size; i++) leads_out |= name.data[i] == '.' && name.data[i + 1] == '.';
    if (leads_out) fail("fmrt.json: '%.*s' is no name of a bundle's file", (int)name.size, name.data);
}

char *bundle_path(const Bundle *bundle, Bytes name) {
    check_name(name);
    size_t size = strlen(bundle->path) + name.size + 2;
    char *path = allocate(size, 1);
    snprintf(path, size, "%s/%.*s", bundle->path, (int)name.size, name.data);
    return path;
}

static uint32_t little(const char *at, int bytes) {
    uint32_t value = 0;
    for (int i = bytes; i-- > 0;) value = value << 8 | (unsigned char)at[i];
    return value;
}

static _Noreturn void damaged(const Bundle *bundle) {
    fail("%s is damaged; copy it again, or make it again with fmrt package", bundle->path);
}

// The content of the member whose entry begins here.
static Bytes content(const Bundle *bundle, const char *entry) {
    Bytes all = bundle->archive;
    size_t method = little(entry + 10, 2), size = little(entry + 24, 4), header = little(entry + 42, 4);
    if (method || little(entry + 20, 4) != size) fail("%s has compressed members; make it with fmrt package without --compress", bundle->path);
    if (header + LOCAL > all.size || memcmp(all.data + header, "PK\3\4", 4) != 0) damaged(bundle);
    size_t first = header + LOCAL + little(all.data + header + 26, 2) + little(all.data + header + 28, 2);
    if (first > all.size || size > all.size - first) damaged(bundle);
    return (Bytes){all.data + first, size};
}

static Bytes member(const Bundle *bundle, Bytes name) {
    Bytes all = bundle->archive;
    const char *end = all.data + all.size - END;
    size_t place = little(end + 16, 4), last = all.size - END;
    for (uint32_t left = little(end + 10, 2); left; left--) {
        if (place > last || last - place < ENTRY || memcmp(all.data + place, "PK\1\2", 4) != 0) damaged(bundle);
        const char *entry = all.data + place;
        Bytes found = {entry + ENTRY, little(entry + 28, 2)};
        place += ENTRY + found.size + little(entry + 30, 2) + little(entry + 32, 2);
        if (place > last) damaged(bundle);
        if (same(found, name)) return content(bundle, entry);
    }
    fail("%s has no %.*s in it", bundle->path, (int)name.size, name.data);
}

Bytes bundle_read(const Bundle *bundle, Bytes name) {
    check_name(name);
    return bundle->is_folder ? map(bundle_path(bundle, name)) : member(bundle, name);
}
