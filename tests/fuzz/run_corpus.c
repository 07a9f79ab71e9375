/* run_corpus PATH...: a fuzz target without libFuzzer. Each file, and each file of each folder, is
 * its input once; a target that finds something aborts: the last name on standard error. */
#include <dirent.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#include "fuzz.h"

static size_t n_run;

static int run_file(const char *path, size_t size)
{
    uint8_t *data = malloc(size ? size : 1);
    FILE *f = fopen(path, "rb");
    const int good = data && f && fread(data, 1, size, f) == size;
    fprintf(stderr, "%s: %s\n", path, good ? "running" : "cannot be read");
    if (good)
        LLVMFuzzerTestOneInput(data, size);
    n_run += (size_t)good;
    if (f)
        fclose(f);
    free(data);
    return good ? 0 : 1;
}

static int run_path(const char *path)
{
    struct stat st;
    char inner[4096];
    int failed = 0;
    if (stat(path, &st) != 0)
        return run_file(path, 0);
    if (!S_ISDIR(st.st_mode))
        return run_file(path, (size_t)st.st_size);
    DIR *folder = opendir(path);
    if (!folder)
        return 1;
    for (const struct dirent *e = readdir(folder); e; e = readdir(folder)) {
        snprintf(inner, sizeof inner, "%s/%s", path, e->d_name);
        if (e->d_name[0] != '.' && stat(inner, &st) == 0 && S_ISREG(st.st_mode))
            failed |= run_file(inner, (size_t)st.st_size);
    }
    closedir(folder);
    return failed;
}

int main(int argc, char **argv)
{
    int failed = 0;
    for (int i = 1; i < argc; i++)
        failed |= run_path(argv[i]);
    if (n_run == 0)
        fprintf(stderr, "no input was run\n");
    return failed || n_run == 0;
}
