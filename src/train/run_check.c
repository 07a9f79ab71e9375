/* What cannot be trained, as far as options and declared shapes say: known before any long work. */
#include "base/strmap.h"
#include "train/run.h"

/* A tensor of that name may vanish when normalizations are folded: that is found later. */
static rung_status check_features(const graph *g, const graph *teacher, const trainer_options *opt,
                                  rung_error *err)
{
    for (int i = 0; i < opt->n_features; i++) {
        const char *name = opt->features[i];
        if (strmap_get(g->by_name, name, -1) < 0)
            return fail(err, RUNG_EARGUMENT, "feature '%s': the model has no tensor of that name",
                        name);
        if (!teacher || strmap_get(teacher->by_name, name, -1) < 0)
            return fail(err, RUNG_EARGUMENT, "feature '%s': %s", name,
                        teacher ? "the teacher has no tensor of that name"
                                : "features need a teacher");
    }
    return RUNG_OK;
}

/* Where both are known they are equal; dimension 0 is the batch. */
static bool shapes_agree(const value *a, const value *b)
{
    if (a->rank < 0 || b->rank < 0)
        return true;
    for (int d = 1; a->rank == b->rank && d < a->rank; d++)
        if (a->dims[d] > 0 && b->dims[d] > 0 && a->dims[d] != b->dims[d])
            return false;
    return a->rank == b->rank;
}

static rung_status check_teacher(const graph *g, const graph *teacher, rung_error *err)
{
    if (teacher->n_inputs != g->n_inputs || teacher->n_outputs != g->n_outputs)
        return fail(err, RUNG_EARGUMENT, "the teacher has %d inputs and %d outputs, the model to "
                    "be trained has %d and %d", teacher->n_inputs, teacher->n_outputs, g->n_inputs,
                    g->n_outputs);
    for (int i = 0; i < g->n_outputs; i++)
        if (!shapes_agree(&g->values[g->outputs[i]], &teacher->values[teacher->outputs[i]]))
            return fail(err, RUNG_EARGUMENT, "output %d, '%s': the teacher's has another shape", i,
                        g->values[g->outputs[i]].name);
    return RUNG_OK;
}

rung_status train_check(const graph *g, const graph *teacher, const dataset *data,
                        const train_options *opt, rung_error *err)
{
    rung_status st = RUNG_OK;
    if (!dataset_size(data))
        return fail(err, RUNG_EARGUMENT, "the data set is empty: there is nothing to train on");
    if (opt->warmup >= (double)opt->epochs)
        return fail(err, RUNG_EARGUMENT, "a warm-up of %g epochs in a run of %zu: the learning "
                    "rate would never reach its height", opt->warmup, opt->epochs);
    for (int i = 0; i < g->n_outputs; i++) {
        const value *v = &g->values[g->outputs[i]];
        if (v->type != RUNG_UNDEFINED && v->type != RUNG_F32)
            return fail(err, RUNG_EUNSUPPORTED, "output '%s' is %s: training needs float32 outputs",
                        v->name, dtype_name(v->type));
    }
    if (teacher)
        st = check_teacher(g, teacher, err);
    if (st == RUNG_OK)
        st = check_features(g, teacher, &opt->trainer, err);
    return st == RUNG_OK ? augment_check(&opt->augment, g, err) : st;
}
