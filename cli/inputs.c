/* The arrays of --input NAME=FILE.npy. */
#include <stdlib.h>
#include <string.h>

#include "cli.h"

/* Which input an argument NAME=FILE is for; *file is set behind the '='. A name may itself hold
 * '=': the longest input name that fits wins. -1: none. */
static int input_index(const rung_model *model, const char *arg, const char **file)
{
    int best = -1;
    size_t best_length = 0;
    for (int i = 0; i < rung_model_n_inputs(model); i++) {
        const char *name = rung_model_input_name(model, i);
        const size_t n = strlen(name);
        if (strncmp(arg, name, n) == 0 && arg[n] == '=' && (best < 0 || n > best_length)) {
            best = i;
            best_length = n;
            *file = arg + n + 1;
        }
    }
    return best;
}

/* arrays: [n_inputs], data NULL where none was given. */
static int load_all(const command *c, const options *o, const rung_model *model,
                    rung_tensor *arrays)
{
    rung_error err;
    for (int i = 0; i < o->n_inputs; i++) {
        const char *file = NULL;
        const int at = input_index(model, o->inputs[i], &file);
        if (at < 0)
            return misused(c,
                           "--input '%s': NAME=FILE.npy is wanted, NAME an input of the "
                           "model ('rung inspect' lists them)",
                           o->inputs[i]);
        if (arrays[at].data)
            return misused(c, "--input '%s': this input is given twice", o->inputs[i]);
        if (rung_npy_load(file, &arrays[at], &err) != RUNG_OK)
            return failed(c, &err);
    }
    for (int i = 0; i < rung_model_n_inputs(model); i++)
        if (!arrays[i].data)
            return misused(c, "--input %s=FILE.npy is missing",
                           rung_model_input_name(model, i));
    return EXIT_GOOD;
}

int inputs_load(const command *c, const options *o, const rung_model *model, rung_tensor **arrays)
{
    rung_error err = {"out of memory"};
    *arrays = calloc((size_t)rung_model_n_inputs(model) + 1, sizeof **arrays);
    return *arrays ? load_all(c, o, model, *arrays) : failed(c, &err);
}

void inputs_free(rung_tensor *arrays, const rung_model *model)
{
    for (int i = 0; arrays && i < rung_model_n_inputs(model); i++)
        rung_npy_free(&arrays[i]);
    free(arrays);
}
