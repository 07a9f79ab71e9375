/* Runs a model on .npy inputs: what tests/model/engine_test.py compares with ONNX Runtime.
 *
 *     engine_run MODEL OUTPUT_DIR THREADS NAME=FILE.npy ...
 *
 * writes OUTPUT_DIR/I.npy for output I and prints one line per step and float island. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/arena.h"
#include "data/npy.h"
#include "engine/engine.h"
#include "onnx/onnx.h"

typedef struct session {
    arena *mem;
    graph *g;
    engine *e;
    tensor *inputs;
    const int64_t **dims;
} session;

static rung_status read_inputs(session *s, int n, char **args, rung_error *err)
{
    s->inputs = arena_zero(s->mem, (size_t)s->g->n_inputs + 1, sizeof *s->inputs);
    s->dims = arena_zero(s->mem, (size_t)s->g->n_inputs + 1, sizeof *s->dims);
    if (!s->inputs || !s->dims)
        return fail_memory(err, "inputs", 1);
    for (int i = 0; i < s->g->n_inputs; i++) {
        const char *name = s->g->values[s->g->inputs[i]].name;
        const size_t length = strlen(name);
        for (int k = 0; k < n; k++) {
            if (strncmp(args[k], name, length) != 0 || args[k][length] != '=')
                continue;
            const rung_status st = npy_read_file(args[k] + length + 1, s->mem, &s->inputs[i], err);
            if (st != RUNG_OK)
                return st;
            s->dims[i] = s->inputs[i].dims;
        }
    }
    return RUNG_OK;
}

static rung_status run(session *s, rung_error *err)
{
    for (int i = 0; i < engine_n_inputs(s->e); i++) {
        const tensor *to = engine_input(s->e, i);
        if (!s->inputs[i].data || s->inputs[i].type != to->type)
            return fail(err, RUNG_EARGUMENT, "input %d is missing or of another type", i);
        memcpy(to->data, s->inputs[i].data, dtype_bytes(to->type, tensor_count(to)));
    }
    engine_profile(s->e, true);
    rung_status st = engine_run(s->e, err);
    engine_profile(s->e, false);
    return st == RUNG_OK ? engine_run(s->e, err) : st;
}

static rung_status write_outputs(const session *s, const char *dir, rung_error *err)
{
    for (int i = 0; i < engine_n_outputs(s->e); i++) {
        const char *path = arena_printf(s->mem, "%s/%d.npy", dir, i);
        if (!path)
            return fail_memory(err, "a path", 1);
        const rung_status st = npy_write_file(path, engine_output(s->e, i), err);
        if (st != RUNG_OK)
            return st;
    }
    return RUNG_OK;
}

static void print_plan(const session *s)
{
    for (size_t i = 0; i < engine_n_steps(s->e); i++) {
        const engine_step_info f = engine_step(s->e, i);
        printf("step\t%s\t%s\t%s\t%lld\t%.3f ms\n", f.integer ? "int" : "float", f.kernel, f.node,
               (long long)f.macs, f.seconds * 1e3);
    }
    for (size_t i = 0; i < engine_n_islands(s->e); i++)
        printf("island\t%s\t%s\n", engine_islands(s->e)[i].node, engine_islands(s->e)[i].reason);
    printf("bytes\t%zu\nmacs\t%lld\t%lld\n", engine_bytes(s->e), (long long)engine_macs(s->e),
           (long long)engine_int_macs(s->e));
}

int main(int argc, char **argv)
{
    rung_error err = {""};
    session s = {0};
    if (argc < 4) {
        fprintf(stderr, "usage: engine_run MODEL OUTPUT_DIR THREADS NAME=FILE.npy ...\n");
        return 2;
    }
    rung_status st = RUNG_EMEMORY;
    if ((s.mem = arena_new()))
        st = onnx_read_file(argv[1], &s.g, &err);
    if (st == RUNG_OK)
        st = read_inputs(&s, argc - 4, argv + 4, &err);
    if (st == RUNG_OK) {
        const engine_options opt = {.n_threads = atoi(argv[3]), .input_dims = s.dims};
        st = engine_create(s.g, &opt, &s.e, &err);
    }
    if (st == RUNG_OK)
        st = run(&s, &err);
    if (st == RUNG_OK)
        st = write_outputs(&s, argv[2], &err);
    if (st == RUNG_OK)
        print_plan(&s);
    else
        fprintf(stderr, "engine_run: %s\n", err.message);
    engine_free(s.e);
    graph_free(s.g);
    arena_free(s.mem);
    return st == RUNG_OK ? 0 : 1;
}
