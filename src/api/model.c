#include "api/handles.h"

#include "base/cpu.h"
#include "base/file.h"
#include "base/mem.h"
#include "graph/diagnostic.h"
#include "onnx/onnx.h"
#include "report/report.h"

rung_status model_wrap(graph *g, rung_model **out, rung_error *err)
{
    rung_model *m = mem_zero(1, sizeof *m);
    const rung_status st =
        m ? pack_store_create(&m->packs, err) : fail_memory(err, "a model", sizeof *m);
    if (st != RUNG_OK) {
        graph_free(g);
        mem_free(m);
        return st;
    }
    m->g = g;
    *out = m;
    return RUNG_OK;
}

rung_status rung_model_load(const char *path, rung_model **out, rung_error *err)
{
    graph *g = NULL;
    if (!path || !out)
        return fail(err, RUNG_EARGUMENT, "rung_model_load: path and out must not be NULL");
    const rung_status st = onnx_read_file(path, &g, err);
    return st == RUNG_OK ? model_wrap(g, out, err) : st;
}

rung_status rung_model_load_memory(const void *data, size_t size, rung_model **out, rung_error *err)
{
    graph *g = NULL;
    if ((!data && size) || !out)
        return fail(err, RUNG_EARGUMENT, "rung_model_load_memory: data and out must not be NULL");
    const rung_status st = onnx_read(data, size, NULL, &g, err);
    return st == RUNG_OK ? model_wrap(g, out, err) : st;
}

rung_status rung_model_save(const rung_model *model, const char *path, rung_error *err)
{
    if (!model || !path)
        return fail(err, RUNG_EARGUMENT, "rung_model_save: model and path must not be NULL");
    return onnx_write_file(model->g, path, false, err);
}

void rung_model_free(rung_model *model)
{
    if (!model)
        return;
    graph_free(model->g);
    pack_store_free(model->packs);
    mem_free(model);
}

int rung_model_n_inputs(const rung_model *model)
{
    return model ? model->g->n_inputs : 0;
}

const char *rung_model_input_name(const rung_model *model, int i)
{
    return i >= 0 && i < rung_model_n_inputs(model) ? model->g->values[model->g->inputs[i]].name
                                                    : NULL;
}

rung_status rung_model_inspect(const rung_model *model, bool json, char **text, rung_error *err)
{
    if (!model || !text)
        return fail(err, RUNG_EARGUMENT, "rung_model_inspect: model and text must not be NULL");
    return report_inspect(model->g, json, text, err);
}

void rung_text_free(char *text)
{
    mem_free(text);
}

size_t rung_diagnostics_count(const rung_diagnostics *d)
{
    return d ? d->n : 0;
}

rung_diagnostic rung_diagnostics_get(const rung_diagnostics *d, size_t i)
{
    static const rung_diagnostic none = {"", "", ""};
    return d && i < d->n ? d->list[i] : none;
}

void rung_diagnostics_free(rung_diagnostics *d)
{
    diagnostics_free(d);
}

rung_status rung_check_cpu(rung_error *err)
{
    return cpu_check(err);
}

rung_status rung_cpu_text(bool json, char **text, rung_error *err)
{
    if (!text)
        return fail(err, RUNG_EARGUMENT, "rung_cpu_text: text is NULL");
    *text = NULL;
    return report_cpu(json, text, err);
}

void rung_remove_temporaries(void)
{
    file_remove_temporaries();
}

const char *rung_version(void)
{
    return RUNG_VERSION;
}
