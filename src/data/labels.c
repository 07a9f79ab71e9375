#include "data/source.h"

#include <ctype.h>
#include <string.h>

/* One line of the file, split. */
typedef struct row {
    const char *name, *label;
    size_t name_n, label_n;
} row;

static size_t trim(const char **text, size_t n)
{
    for (; n && isspace((unsigned char)**text); n--)
        ++*text;
    while (n && isspace((unsigned char)(*text)[n - 1]))
        n--;
    return n;
}

/* NAME,LABEL or "NAME",LABEL. */
static bool split(const char *line, size_t n, row *out)
{
    const char *end = NULL;
    *out = (row){.name = line};
    if (n && *line == '"') {
        out->name++;
        end = memchr(line + 1, '"', n - 1);
        if (!end || end + 1 == line + n || end[1] != ',')
            return false;
        out->label = end + 2;
    } else {
        end = memchr(line, ',', n);
        if (!end)
            return false;
        out->label = end + 1;
    }
    out->name_n = (size_t)(end - out->name);
    out->label_n = trim(&out->label, (size_t)(line + n - out->label));
    return true;
}

static bool read_label(const row *r, int64_t *out)
{
    enum { MOST_DIGITS = 18 };
    int64_t v = 0;
    if (r->label_n == 0 || r->label_n > MOST_DIGITS)
        return false;
    for (size_t i = 0; i < r->label_n; i++) {
        if (!isdigit((unsigned char)r->label[i]))
            return false;
        v = v * 10 + (r->label[i] - '0');
    }
    *out = v;
    return true;
}

static rung_status read_line(const char *line, size_t n, size_t number, const name_list *names,
                             int64_t *labels, rung_error *err)
{
    row r;
    int64_t label;
    if (!split(line, n, &r))
        return fail(err, RUNG_EFORMAT, "line %zu: expected filename,label", number);
    const size_t i = name_list_find(names, r.name, r.name_n);
    const bool is_number = read_label(&r, &label);
    if (i == names->n && number == 1 && !is_number)
        return RUNG_OK; /* the header */
    const int shown = (int)(r.name_n < 200 ? r.name_n : 200);
    if (i == names->n)
        return fail(err, RUNG_EFORMAT, "line %zu: the folder has no image \"%.*s\"", number, shown,
                    r.name);
    if (!is_number)
        return fail(err, RUNG_EFORMAT, "line %zu: the label \"%.*s\" is not an integer from 0 on",
                    number, (int)(r.label_n < 60 ? r.label_n : 60), r.label);
    if (labels[i] >= 0)
        return fail(err, RUNG_EFORMAT, "line %zu: \"%.*s\" has a label already", number, shown,
                    r.name);
    labels[i] = label;
    return RUNG_OK;
}

static rung_status read_lines(const file_map *map, const name_list *names, int64_t *labels,
                              rung_error *err)
{
    const char *at = map->size ? (const char *)map->data : "", *end = at + map->size;
    if (map->size >= 3 && memcmp(at, "\xef\xbb\xbf", 3) == 0)
        at += 3; /* the byte order mark of spreadsheets */
    for (size_t number = 1; at < end; number++) {
        const char *newline = memchr(at, '\n', (size_t)(end - at));
        const char *next = newline ? newline + 1 : end, *line = at;
        const size_t n = trim(&line, (size_t)(next - at));
        rung_status st = n ? read_line(line, n, number, names, labels, err) : RUNG_OK;
        if (st != RUNG_OK)
            return st;
        at = next;
    }
    for (size_t i = 0; i < names->n; i++)
        if (labels[i] < 0)
            return fail(err, RUNG_EFORMAT, "no line gives the label of \"%s\"",
                        name_list_get(names, i));
    return RUNG_OK;
}

rung_status labels_read_csv(const char *path, const name_list *names, int64_t *labels,
                            rung_error *err)
{
    file_map map;
    rung_status st = file_map_open(path, &map, err);
    if (st != RUNG_OK)
        return st;
    for (size_t i = 0; i < names->n; i++)
        labels[i] = -1;
    st = read_lines(&map, names, labels, err);
    file_map_close(&map);
    return st == RUNG_OK ? st : fail_at(err, st, "%s", path);
}
