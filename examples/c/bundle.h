// The files of a bundle: in a folder, or in one .fmrt file (a zip archive of stored members).
#ifndef BUNDLE_H
#define BUNDLE_H

#include "common.h"

typedef struct {
    const char *path;
    bool is_folder;
    Bytes archive;  // of one file
} Bundle;

Bundle bundle_open(const char *path);

// A file's content, mapped into memory: pages are read when they are used.
Bytes bundle_read(const Bundle *bundle, Bytes name);

// Where a file of a folder is.
char *bundle_path(const Bundle *bundle, Bytes name);

#endif
