/* rewrite_prepare over every model under $RUNG_SHARED/models: valid graphs that infer. Skipped, by
 * name, where the variable is not set. */
#include "graph_kit.h"

#include <ftw.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "graph/rewrite.h"
#include "onnx/onnx.h"

static int n_models;

static void check_operators(const graph *g, const char *path)
{
    char label[NODE_LABEL_SIZE];
    for (size_t i = 0; i < g->n_nodes; i++) {
        const node *n = &g->nodes[i];
        node_label(g, n, label, sizeof label);
        if (!strcmp(n->op_type, "Identity") || !strcmp(n->op_type, "Constant"))
            for (int k = 0; k < n->n_outputs; k++)
                if (!g->values[n->outputs[k]].is_output)
                    fail_msg("%s: %s is left", path, label);
        if (!strcmp(n->op_type, "BatchNormalization"))
            fail_msg("%s: %s is left", path, label);
    }
}

/* Reads, prepares, checks; the names of inputs and outputs are kept. */
static void check_model(const char *path)
{
    graph *g, *before;
    rung_error why;
    if (onnx_read_file(path, &g, &why) != RUNG_OK)
        fail_msg("%s", why.message);
    assert_ok(graph_clone(g, &before, err));
    if (rewrite_prepare(g, &why) != RUNG_OK || graph_verify(g, &why) != RUNG_OK)
        fail_msg("%s: %s", path, why.message);
    arena *mem = arena_new();
    value_info *info = arena_zero(mem, g->n_values, sizeof *info);
    if (graph_infer(g, NULL, mem, info, &why) != RUNG_OK)
        fail_msg("%s: %s", path, why.message);
    check_operators(g, path);
    assert_int_equal(g->n_inputs, before->n_inputs);
    assert_int_equal(g->n_outputs, before->n_outputs);
    for (int k = 0; k < g->n_outputs; k++)
        assert_string_equal(g->values[g->outputs[k]].name, before->values[before->outputs[k]].name);
    print_message("%s: %zu nodes, then %zu\n", path, before->n_nodes, g->n_nodes);
    arena_free(mem);
    graph_free(before);
    graph_free(g);
}

static int visit(const char *path, const struct stat *st, int kind, struct FTW *at)
{
    const size_t n = strlen(path);
    if (kind == FTW_F && n > 5 && !strcmp(path + n - 5, ".onnx")) {
        check_model(path);
        n_models++;
    }
    return 0;
}

static void all_models(void **state)
{
    const char *shared = getenv("RUNG_SHARED");
    if (!shared) {
        print_message("skipped: rewrite_prepare over real models: RUNG_SHARED is not set\n");
        skip();
    }
    char folder[4096];
    snprintf(folder, sizeof folder, "%s/models", shared);
    assert_int_equal(nftw(folder, visit, 16, FTW_PHYS), 0);
    assert_true(n_models > 0);
}

int main(void)
{
    const struct CMUnitTest tests[] = { cmocka_unit_test(all_models) };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
