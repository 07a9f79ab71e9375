#include "api/handles.h"

#include <sched.h>
#include <string.h>

#include "base/mem.h"

static int n_processors(void)
{
    cpu_set_t usable;
    return sched_getaffinity(0, sizeof usable, &usable) == 0 ? CPU_COUNT(&usable) : 1;
}

/* What one sample of the model's inputs looks like: unknown dims are 1, or 224 for the height and
 * width of images; the first dimension is the batch. */
static rung_status describe_inputs(const graph *g, rung_tensor *like, const char **names,
                                   rung_error *err)
{
    for (int i = 0; i < g->n_inputs; i++) {
        const value *v = &g->values[g->inputs[i]];
        if (v->rank < 0 || v->type == RUNG_UNDEFINED)
            return fail(err, RUNG_EUNSUPPORTED,
                        "input '%s' has no declared type and shape: random "
                        "data cannot be made for it",
                        v->name);
        like[i] = (rung_tensor){.type = v->type, .rank = v->rank};
        names[i] = v->name;
        for (int d = 0; d < v->rank; d++)
            like[i].dims[d] = d == 0                      ? 1
                              : v->dims[d] != DIM_UNKNOWN ? v->dims[d]
                              : v->rank == 4 && d > 1     ? 224
                                                          : 1;
    }
    return RUNG_OK;
}

static rung_status open_described(const char *spec, dataset_options *opt, const rung_model *model,
                                  dataset **out, rung_error *err)
{
    const size_t n = model ? (size_t)model->g->n_inputs : 0;
    rung_tensor *like = mem_zero(n + 1, sizeof *like);
    const char **names = mem_zero(n + 1, sizeof *names);
    rung_status st = RUNG_OK;
    if (!like || !names)
        st = fail_memory(err, "a description of inputs", n * sizeof *like);
    else if (model && strncmp(spec, "random", 6) == 0)
        st = describe_inputs(model->g, like, names, err);
    if (st == RUNG_OK) {
        opt->random_like = n ? like : NULL;
        opt->random_names = n ? names : NULL;
        opt->n_random = (int)n;
        st = dataset_open(spec, opt, out, err);
    }
    mem_free(like);
    mem_free(names);
    return st;
}

rung_status rung_dataset_open(const char *spec, const char *pre, const rung_model *model,
                              int n_threads, rung_dataset **out, rung_error *err)
{
    if (!spec || !out)
        return fail(err, RUNG_EARGUMENT, "rung_dataset_open: spec and out must not be NULL");
    if (!pre && model)
        pre = graph_metadata(model->g, "rung.preprocess");
    if (n_threads < 0)
        return fail(err, RUNG_EARGUMENT,
                    "rung_dataset_open: %d threads; give 1 or more, or 0 for all "
                    "processors",
                    n_threads);
    dataset_options opt = {.n_workers = n_threads ? n_threads : n_processors()};
    rung_status st = preprocess_parse(pre, &opt.pre, err);
    if (st != RUNG_OK)
        return st;
    rung_dataset *d = mem_zero(1, sizeof *d);
    if (!d)
        return fail_memory(err, "a data set", sizeof *d);
    if ((st = open_described(spec, &opt, model, &d->d, err)) != RUNG_OK) {
        mem_free(d);
        return st;
    }
    *out = d;
    return RUNG_OK;
}

size_t rung_dataset_size(const rung_dataset *data)
{
    return data ? dataset_size(data->d) : 0;
}

bool rung_dataset_is_random(const rung_dataset *data)
{
    return data && dataset_is_random(data->d);
}

void rung_dataset_free(rung_dataset *data)
{
    if (!data)
        return;
    dataset_free(data->d);
    mem_free(data);
}
