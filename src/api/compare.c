#include "report/compare.h"

#include <string.h>

#include "api/handles.h"
#include "api/options.h"
#include "base/file.h"
#include "base/mem.h"

struct rung_comparison {
    comparison *c;
};

rung_status rung_compare(const rung_model *reference, const rung_model *model, rung_dataset *data,
                         const rung_compare_options *options, rung_comparison **out,
                         rung_error *err)
{
    rung_compare_options opt;
    rung_status st;
    if (!reference || !model || !data || !out)
        return fail(err, RUNG_EARGUMENT,
                    "rung_compare: reference, model, data and out must not be NULL");
    if ((st = options_copy(&opt, sizeof opt, options, "rung_compare_options", err)) != RUNG_OK)
        return st;
    if (opt.n_threads < 0 || !(opt.seconds >= 0))
        return fail(err, RUNG_EARGUMENT, "rung_compare: threads and seconds must not be negative");
    const compare_options co = {
        .samples = opt.samples, .seed = opt.seed, .n_threads = opt.n_threads,
        .seconds = opt.seconds, .quiet = opt.quiet, .reference_title = opt.reference_title,
        .title = opt.model_title, .data_title = opt.data_title,
        .reference_bytes = opt.reference_bytes, .model_bytes = opt.model_bytes,
        .sensitivity = opt.sensitivity ? SENSITIVITY_SAMPLES : 0,
    };
    rung_comparison *c = mem_zero(1, sizeof *c);
    if (!c)
        return fail_memory(err, "a comparison", sizeof *c);
    if ((st = measure_compare(reference->g, model->g, data->d, &co, &c->c, err)) != RUNG_OK) {
        mem_free(c);
        return st;
    }
    *out = c;
    return RUNG_OK;
}

rung_status rung_comparison_text(const rung_comparison *c, bool json, char **out, rung_error *err)
{
    if (!c || !out)
        return fail(err, RUNG_EARGUMENT, "rung_comparison_text: c and text must not be NULL");
    return json ? report_compare_json(c->c, out, err) : report_compare_text(c->c, out, err);
}

rung_status rung_comparison_save_html(const rung_comparison *c, const char *path, rung_error *err)
{
    char *page = NULL;
    rung_status st;
    if (!c || !path)
        return fail(err, RUNG_EARGUMENT, "rung_comparison_save_html: c and path must not be NULL");
    st = report_compare_html(c->c, &page, err);
    if (st == RUNG_OK)
        st = file_write_whole(path, page, strlen(page), err);
    mem_free(page);
    return st;
}

void rung_comparison_free(rung_comparison *c)
{
    if (!c)
        return;
    comparison_free(c->c);
    mem_free(c);
}
