/* The profile of a run, and errors per output. */
#include "report/report.h"

#include <math.h>

#include "report/text.h"

rung_status report_profile(const engine *e, char **out, rung_error *err)
{
    text t = {0};
    double total = 0;
    for (size_t i = 0; i < engine_n_steps(e); i++)
        total += engine_step(e, i).seconds;
    text_add(&t, "%8s %6s %9s  %-24s %s\n", "ms", "%", "GMAC/s", "kernel", "node");
    for (size_t i = 0; i < engine_n_steps(e); i++) {
        const engine_step_info s = engine_step(e, i);
        text_add(&t, "%8.4f %6.2f ", s.seconds * 1e3, total > 0 ? 100 * s.seconds / total : 0);
        if (s.macs > 0 && s.seconds > 0)
            text_add(&t, "%9.1f  ", (double)s.macs / s.seconds * 1e-9);
        else
            text_add(&t, "%9s  ", "");
        text_add(&t, "%-24s %s\n", s.kernel, s.node);
    }
    text_add(&t, "%8.4f  all steps\n", total * 1e3);
    return text_take(&t, out, err);
}

rung_status report_sqnr(const output_sqnr *sqnr, int n, char **out, rung_error *err)
{
    text t = {0};
    text_add(&t, "{");
    for (int i = 0; i < n; i++) {
        text_add(&t, "%s\"", i ? ", " : "");
        for (const char *c = sqnr[i].name; *c; c++) {
            if (*c == '"' || *c == '\\')
                text_add(&t, "\\%c", *c);
            else if ((unsigned char)*c < 0x20)
                text_add(&t, "\\u%04x", (unsigned char)*c);
            else
                text_add(&t, "%c", *c);
        }
        if (isfinite(sqnr[i].db))
            text_add(&t, "\": %.4f", sqnr[i].db);
        else
            text_add(&t, "\": null");
    }
    text_add(&t, "}");
    return text_take(&t, out, err);
}
