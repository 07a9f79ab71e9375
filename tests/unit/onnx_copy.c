/* onnx_copy IN OUT [external|memory]: reads a model and writes it. Exit status 1: the sentence is
 * on standard error. Memory: through onnx_read and onnx_write, with the file's folder. */
#include <stdio.h>
#include <string.h>

#include "base/file.h"
#include "base/mem.h"
#include "onnx/onnx.h"

static rung_status copy_in_memory(const char *in, const char *to, rung_error *err)
{
    file_map map;
    graph *g = NULL;
    unsigned char *data = NULL;
    size_t size;
    file_writer *w;
    rung_status st = file_map_open(in, &map, err);
    if (st != RUNG_OK)
        return st;
    if ((st = onnx_read(map.data, map.size, NULL, &g, err)) == RUNG_OK &&
        (st = onnx_write(g, &data, &size, err)) == RUNG_OK &&
        (st = file_writer_open(to, &w, err)) == RUNG_OK) {
        st = file_write(w, data, size, err);
        if (st == RUNG_OK)
            st = file_writer_commit(w, err);
        else
            file_writer_abort(w);
    }
    mem_free(data);
    graph_free(g);
    file_map_close(&map);
    return st;
}

int main(int argc, char **argv)
{
    const char *how = argc > 3 ? argv[3] : "";
    rung_error err = { "" };
    graph *g = NULL;
    rung_status st;

    if (argc < 3) {
        fprintf(stderr, "usage: onnx_copy IN OUT [external|memory]\n");
        return 2;
    }
    if (!strcmp(how, "memory"))
        st = copy_in_memory(argv[1], argv[2], &err);
    else if ((st = onnx_read_file(argv[1], &g, &err)) == RUNG_OK)
        st = onnx_write_file(g, argv[2], !strcmp(how, "external"), &err);
    graph_free(g);
    if (st != RUNG_OK)
        fprintf(stderr, "%s\n", err.message);
    return st != RUNG_OK;
}
