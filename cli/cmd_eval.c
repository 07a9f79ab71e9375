#include "cli.h"

#include <math.h>

static void print_number(const char *key, double v, bool known)
{
    if (known)
        printf(", \"%s\": %.4f", key, v);
    else
        printf(", \"%s\": null", key);
}

static void print_json(const rung_eval_result *r, const char *detail)
{
    printf("{\"samples\": %zu", r->samples);
    print_number("top1", r->top1, r->top1 >= 0);
    print_number("top5", r->top5, r->top5 >= 0);
    print_number("agreement", r->agreement, r->agreement >= 0);
    print_number("sqnr_db", r->sqnr_db, isfinite(r->sqnr_db));
    print_number("loss", r->loss, isfinite(r->loss));
    print_number("seconds", r->seconds, true);
    printf(", \"outputs_sqnr_db\": %s}\n", detail);
}

static void print_text(const rung_eval_result *r)
{
    printf("samples    %zu\n", r->samples);
    if (r->top1 >= 0)
        printf("top-1      %.2f %%\ntop-5      %.2f %%\nloss       %.4f\n", r->top1, r->top5,
               r->loss);
    if (r->agreement >= 0)
        printf("agreement  %.2f %% of top-1 with the reference\n", r->agreement);
    if (isinf(r->sqnr_db))
        printf("SQNR       no difference from the reference\n");
    else if (!isnan(r->sqnr_db))
        printf("SQNR       %.2f dB against the reference (worst output)\n", r->sqnr_db);
    printf("time       %.1f s\n", r->seconds);
}

static int run(int argc, char **argv)
{
    options o;
    rung_model *model = NULL, *reference = NULL;
    rung_dataset *data = NULL;
    rung_eval_result result;
    rung_error err;
    char *detail = NULL;
    int status = options_parse(&cmd_eval, argc, argv,
                               "data reference preprocess threads batch json quiet", &o);
    if (status != EXIT_GOOD || o.help)
        goto done;
    if (!o.data) {
        status = misused(&cmd_eval, "--data is missing: the samples to evaluate on");
        goto done;
    }
    const rung_eval_options eo = {
        .size = sizeof eo, .n_threads = (int)o.threads, .batch = (int)o.batch, .quiet = o.quiet};
    if (rung_model_load(o.model, &model, &err) != RUNG_OK ||
        (o.reference && rung_model_load(o.reference, &reference, &err) != RUNG_OK) ||
        rung_dataset_open(o.data, o.preprocess, model, (int)o.threads, &data, &err) != RUNG_OK ||
        rung_eval(model, reference, data, &eo, &result, &detail, &err) != RUNG_OK) {
        status = failed(&cmd_eval, &err);
        goto done;
    }
    if (rung_dataset_is_random(data))
        fprintf(stderr, "remark: random-data: accuracy on random data means nothing\n");
    if (o.json)
        print_json(&result, detail);
    else
        print_text(&result);
    status = finish(&cmd_eval);
done:
    rung_text_free(detail);
    rung_dataset_free(data);
    rung_model_free(reference);
    rung_model_free(model);
    options_free(&o);
    return status;
}

const command cmd_eval = {
    "eval",
    "accuracy on labelled data, and agreement with a reference model",
    "Usage: rung eval MODEL --data D [--reference MODEL] [options]\n\n"
    "Runs the model over the data: top-1 and top-5 accuracy and cross-entropy where there are\n"
    "labels; with a reference, agreement of top-1 and the signal-to-quantization-noise ratio.\n\n"
    "  --data D            FORMAT:PATH[,PATH][@A:B] as in 'rung quantize --help'\n"
    "  --reference MODEL   usually the float model\n"
    "  --preprocess TEXT   default: the one stored in the model\n"
    "  --threads N         default: all processors\n"
    "  --batch N           samples at a time\n"
    "  --json              one object: samples, top1, top5, agreement (percent), sqnr_db (worst\n"
    "                      output), loss, seconds, outputs_sqnr_db; null where it does not apply\n"
    "  --quiet             no progress\n\n"
    "Examples:\n"
    "  rung eval net_int8.onnx --data cifar10:test_batch.bin --reference net.onnx\n"
    "  rung eval net.onnx --data images:val@0:1000 --json\n",
    run,
};
