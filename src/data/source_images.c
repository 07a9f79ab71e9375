#include "data/source.h"

#include <dirent.h>
#include <errno.h>
#include <limits.h>
#include <stdio.h>
#include <string.h>
#include <strings.h>
#include <sys/stat.h>

#include "base/mem.h"
#include "data/pixels.h"

/* Only names are kept: an image is read and decoded when its sample is. */
typedef struct folder {
    pixel_plan plan;
    const char *root;
    name_list files;   /* by class, then by name */
    name_list classes; /* empty: the files lie in root itself */
    int64_t *class_of; /* [files.n], when there are classes */
} folder;

static void folder_free(void *p)
{
    folder *f = p;
    name_list_free(&f->files);
    name_list_free(&f->classes);
}

static bool is_image_name(const char *name)
{
    const char *dot = strrchr(name, '.');
    return dot && (strcasecmp(dot, ".jpg") == 0 || strcasecmp(dot, ".jpeg") == 0 ||
                   strcasecmp(dot, ".png") == 0);
}

/* Links count as what they lead to. */
static bool is_folder(DIR *dir, const struct dirent *e)
{
    struct stat st;
    if (e->d_type == DT_DIR || e->d_type == DT_REG)
        return e->d_type == DT_DIR;
    return fstatat(dirfd(dir), e->d_name, &st, 0) == 0 && S_ISDIR(st.st_mode);
}

/* Adds the images of a folder to `files` and, unless NULL, its folders to `folders`; hidden ones
 * are left out. */
static rung_status list(const char *path, name_list *files, name_list *folders, rung_error *err)
{
    const size_t first = files->n;
    rung_status st = RUNG_OK;
    DIR *dir = opendir(path);
    if (!dir)
        return fail(err, RUNG_EIO, "%s: cannot open the folder: %s", path, strerror(errno));
    const struct dirent *e;
    while (st == RUNG_OK && (errno = 0, e = readdir(dir))) {
        if (e->d_name[0] == '.')
            continue;
        if (folders && is_folder(dir, e))
            st = name_list_add(folders, e->d_name, err);
        else if (is_image_name(e->d_name))
            st = name_list_add(files, e->d_name, err);
    }
    if (st == RUNG_OK && errno)
        st = fail(err, RUNG_EIO, "%s: cannot read the folder: %s", path, strerror(errno));
    closedir(dir);
    name_list_sort(files, first);
    if (folders)
        name_list_sort(folders, 0);
    return st;
}

static void image_path(const folder *f, size_t i, char *path, size_t size)
{
    if (f->classes.n)
        snprintf(path, size, "%s/%s/%s", f->root,
                 name_list_get(&f->classes, (size_t)f->class_of[i]), name_list_get(&f->files, i));
    else
        snprintf(path, size, "%s/%s", f->root, name_list_get(&f->files, i));
}

static void describe(const dataset *d, size_t i, char *text, size_t size)
{
    image_path(d->state, i, text, size);
}

static rung_status read_image(const dataset *d, size_t i, scratch *s, rung_tensor *inputs,
                              rung_error *err)
{
    const folder *f = d->state;
    char path[PATH_MAX];
    image im;
    file_map map;
    image_path(f, i, path, sizeof path);
    rung_status st = file_map_open(path, &map, err);
    if (st != RUNG_OK)
        return st;
    st = image_decode(map.data, map.size, &s->decoded, &im, err);
    file_map_close(&map);
    if (st == RUNG_OK)
        st = pixel_plan_run(&f->plan, &im, s, inputs, err);
    return st == RUNG_OK ? st : fail_at(err, st, "%s", path);
}

/* root/CLASS/FILE: the label is the position of the class, folders without images counted. */
static rung_status list_classes(dataset *d, folder *f, rung_error *err)
{
    char path[PATH_MAX];
    size_t *ends = arena_zero(d->mem, f->classes.n, sizeof *ends);
    if (!ends)
        return fail_memory(err, "the classes", f->classes.n * sizeof *ends);
    for (size_t c = 0; c < f->classes.n; c++) {
        snprintf(path, sizeof path, "%s/%s", f->root, name_list_get(&f->classes, c));
        rung_status st = list(path, &f->files, NULL, err);
        if (st != RUNG_OK)
            return st;
        ends[c] = f->files.n;
    }
    f->class_of = arena_zero(d->mem, f->files.n, sizeof *f->class_of);
    if (!f->class_of)
        return fail_memory(err, "the labels", f->files.n * sizeof *f->class_of);
    for (size_t c = 0, i = 0; c < f->classes.n; c++)
        for (; i < ends[c]; i++)
            f->class_of[i] = (int64_t)c;
    d->labels = f->class_of;
    return RUNG_OK;
}

static rung_status read_flat_labels(dataset *d, folder *f, rung_error *err)
{
    char path[PATH_MAX];
    struct stat st;
    snprintf(path, sizeof path, "%s/labels.csv", f->root);
    if (stat(path, &st) != 0 && errno == ENOENT)
        return RUNG_OK;
    int64_t *labels = arena_zero(d->mem, f->files.n, sizeof *labels);
    if (!labels)
        return fail_memory(err, "the labels", f->files.n * sizeof *labels);
    d->labels = labels;
    return labels_read_csv(path, &f->files, labels, err);
}

static rung_status list_all(dataset *d, folder *f, rung_error *err)
{
    rung_status st = list(f->root, &f->files, &f->classes, err);
    if (st != RUNG_OK)
        return st;
    if (f->files.n && f->classes.n)
        return fail(err, RUNG_EFORMAT,
                    "%s: holds images (%s) and folders (%s); expected a folder for each class, or "
                    "images only",
                    f->root, name_list_get(&f->files, 0), name_list_get(&f->classes, 0));
    if (f->classes.n)
        st = list_classes(d, f, err);
    if (st == RUNG_OK && f->files.n == 0)
        return fail(err, RUNG_EFORMAT,
                    "%s: no .jpg, .jpeg or .png file, neither in it nor in its folders", f->root);
    return st == RUNG_OK && !f->classes.n ? read_flat_labels(d, f, err) : st;
}

rung_status source_images(dataset *d, const char *dir, const preprocess *pre, rung_error *err)
{
    folder *f = arena_zero(d->mem, 1, sizeof *f);
    if (!f || !(f->root = arena_strdup(d->mem, dir)) || arena_defer(d->mem, folder_free, f) != 0)
        return fail_memory(err, "a set of images", sizeof *f);
    pixel_plan_init(&f->plan, pre);
    rung_status st = list_all(d, f, err);
    source_one_input(d);
    d->total = f->files.n;
    d->state = f;
    d->read = read_image;
    d->describe = describe;
    return st;
}
