#include "cli.h"

static void print_result(const rung_bench_result *r, bool json)
{
    if (json) {
        printf("{\"median_ms\": %.5f, \"p10_ms\": %.5f, \"p90_ms\": %.5f, \"macs\": %lld, "
               "\"gmacs_per_s\": %.3f, \"int_macs_share\": %.4f, \"threads\": %d, \"batch\": %d, "
               "\"runs\": %d, \"load_ms\": %.3f, \"peak_rss_mb\": %.1f}\n",
               r->median_ms, r->p10_ms, r->p90_ms, (long long)r->macs, r->gmacs_per_s,
               r->int_macs_share, r->threads, r->batch, r->runs, r->load_ms, r->peak_rss_mb);
        return;
    }
    printf("latency    %.4f ms median, %.4f to %.4f ms (10th to 90th percentile of %d runs)\n",
           r->median_ms, r->p10_ms, r->p90_ms, r->runs);
    printf("work       %.1f M multiply-accumulates, %.1f GMAC/s, %.1f %% in integers\n",
           (double)r->macs / 1e6, r->gmacs_per_s, 100 * r->int_macs_share);
    printf("threads    %d, batch %d\nloading    %.1f ms\nmemory     %.1f MB peak\n", r->threads,
           r->batch, r->load_ms, r->peak_rss_mb);
}

static int bench_model(const options *o, const rung_model *model, const rung_tensor *arrays)
{
    rung_bench_result result;
    rung_error err;
    char *profile = NULL;
    const rung_bench_options bo = {.size = sizeof bo,
                                   .n_threads = (int)o->threads,
                                   .batch = (int)o->batch,
                                   .seconds = o->seconds,
                                   .inputs = arrays,
                                   .profile = o->profile && !o->json};
    if (rung_bench(model, &bo, &result, &profile, &err) != RUNG_OK)
        return failed(&cmd_bench, &err);
    if (profile)
        fputs(profile, stdout);
    print_result(&result, o->json);
    rung_text_free(profile);
    return finish(&cmd_bench);
}

static int show_cpu(bool json)
{
    rung_error err;
    char *text;
    if (rung_cpu_text(json, &text, &err) != RUNG_OK)
        return failed(&cmd_bench, &err);
    fputs(text, stdout);
    rung_text_free(text);
    return finish(&cmd_bench);
}

static int run(int argc, char **argv)
{
    options o;
    rung_model *model = NULL;
    rung_tensor *arrays = NULL;
    rung_error err;
    int status =
        options_parse(&cmd_bench, argc, argv, "threads batch seconds input profile cpu json", &o);
    if (status != EXIT_GOOD || o.help)
        goto done;
    if (o.cpu) {
        status = o.model ? misused(&cmd_bench, "--cpu takes no model") : show_cpu(o.json);
        goto done;
    }
    if (o.batch && o.n_inputs) {
        status = misused(&cmd_bench, "--batch and --input: the arrays say the batch");
        goto done;
    }
    if (rung_model_load(o.model, &model, &err) != RUNG_OK) {
        status = failed(&cmd_bench, &err);
        goto done;
    }
    if (o.n_inputs)
        status = inputs_load(&cmd_bench, &o, model, &arrays);
    if (status == EXIT_GOOD)
        status = bench_model(&o, model, arrays);
done:
    inputs_free(arrays, model);
    rung_model_free(model);
    options_free(&o);
    return status;
}

const command cmd_bench = {
    "bench",
    "latency, throughput and memory",
    "Usage: rung bench MODEL [options]\n"
    "       rung bench --cpu [--json]\n\n"
    "Times the model on random input: three runs to warm up, then for --seconds, at least five.\n\n"
    "  --threads N    default: all processors\n"
    "  --batch N      for models whose first dimension is open; default 1\n"
    "  --seconds S    default 2\n"
    "  --input NAME=FILE.npy\n"
    "                 real input instead, one for each input of the model: its shape is taken\n"
    "                 for dimensions that are open, as height and width\n"
    "  --profile      a table of steps first: milliseconds, share, GMAC/s, kernel, node\n"
    "  --cpu          no model: the instruction sets of this machine, the integer kernels, and\n"
    "                 which of them run\n"
    "  --json         one object: median_ms, p10_ms, p90_ms, macs, gmacs_per_s, int_macs_share,\n"
    "                 threads, batch, runs, load_ms, peak_rss_mb\n\n"
    "Examples:\n"
    "  rung bench net_int8.onnx --threads 1\n"
    "  RUNG_CPU=avx2 rung bench net_int8.onnx --profile\n",
    run,
};
