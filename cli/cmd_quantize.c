#include "cli.h"

#include <string.h>
#include <sys/stat.h>

typedef struct word {
    const char *name;
    int         value;
} word;

static const word ranges[] = { { "minmax", RUNG_RANGE_MINMAX }, { "ema", RUNG_RANGE_EMA },
                               { "percentile", RUNG_RANGE_PERCENTILE },
                               { "entropy", RUNG_RANGE_ENTROPY }, { "mse", RUNG_RANGE_MSE },
                               { NULL, 0 } };
static const word act_types[] = { { "uint8", RUNG_U8 }, { "int8", RUNG_I8 }, { NULL, 0 } };
static const word weight_schemes[] = { { "per-channel", 0 }, { "per-tensor", 1 }, { NULL, 0 } };
static const word modes[] = { { "static", 0 }, { NULL, 0 } };

static bool lookup(const word *list, const char *name, int *value)
{
    if (!name)
        return true; /* not given: the default stays */
    for (; list->name; list++)
        if (strcmp(list->name, name) == 0) {
            *value = list->value;
            return true;
        }
    return false;
}

static int take_options(const options *o, rung_quant_options *q)
{
    int mode = 0, range = 0, act_type = 0, per_tensor = 0;
    if (!o->output)
        return misused(&cmd_quantize, "-o FILE is missing: where the quantized model goes");
    if (!lookup(modes, o->mode, &mode))
        return misused(&cmd_quantize, "--mode '%s': static is wanted", o->mode);
    if (!o->data)
        return misused(&cmd_quantize, "--data is missing: samples to calibrate on");
    if (!lookup(ranges, o->range, &range))
        return misused(&cmd_quantize,
                       "--range '%s': minmax, ema, percentile, entropy or mse is wanted", o->range);
    if (!lookup(act_types, o->act_type, &act_type))
        return misused(&cmd_quantize, "--act-type '%s': uint8 or int8 is wanted", o->act_type);
    if (!lookup(weight_schemes, o->weight_scheme, &per_tensor))
        return misused(&cmd_quantize, "--weight-scheme '%s': per-channel or per-tensor is wanted",
                       o->weight_scheme);
    *q = (rung_quant_options){
        .size = sizeof *q, .range = (rung_range)range, .percentile = o->percentile,
        .act_type = (rung_dtype)act_type, .act_symmetric = o->symmetric,
        .per_tensor = per_tensor != 0, .exclude = o->exclude, .n_exclude = o->n_exclude,
        .ops = o->ops, .n_ops = o->n_ops, .samples = (size_t)o->samples,
        .seed = (uint64_t)o->seed, .n_threads = (int)o->threads, .batch = (int)o->batch,
        .quiet = o->quiet, .preprocess = o->preprocess,
    };
    return EXIT_GOOD;
}

static long long file_bytes(const char *path)
{
    struct stat s;
    return stat(path, &s) == 0 ? (long long)s.st_size : 0;
}

static void print_remarks(const rung_diagnostics *d)
{
    for (size_t i = 0; i < rung_diagnostics_count(d); i++) {
        const rung_diagnostic r = rung_diagnostics_get(d, i);
        fprintf(stderr, "remark: %s: %s: ", r.code, r.where);
        print_message(r.message);
    }
}

static int run(int argc, char **argv)
{
    options o;
    rung_quant_options q;
    rung_model *model = NULL, *quantized = NULL;
    rung_dataset *data = NULL;
    rung_diagnostics *remarks = NULL;
    rung_error err;
    int status = options_parse(&cmd_quantize, argc, argv,
                               "output data mode range percentile act-type act-symmetric "
                               "weight-scheme exclude ops samples seed threads batch preprocess "
                               "quiet", &o);
    if (status != EXIT_GOOD || o.help || (status = take_options(&o, &q)) != EXIT_GOOD)
        goto done;
    rung_status st = rung_model_load(o.model, &model, &err);
    if (st == RUNG_OK)
        st = rung_dataset_open(o.data, o.preprocess, model, q.n_threads, &data, &err);
    if (st == RUNG_OK && rung_dataset_is_random(data))
        fprintf(stderr, "remark: random-data: calibrating on random data: sizes and speed are right, "
                        "accuracy is not\n");
    if (st == RUNG_OK)
        st = rung_quantize_static(model, data, &q, &quantized, &remarks, &err);
    print_remarks(remarks);
    if (st == RUNG_OK)
        st = rung_model_save(quantized, o.output, &err);
    if (st != RUNG_OK) {
        status = failed(&cmd_quantize, &err);
        goto done;
    }
    const long long before = file_bytes(o.model), after = file_bytes(o.output);
    fprintf(stderr, "%s: %lld bytes, %.2f of %s\n", o.output, after,
            before ? (double)after / (double)before : 0.0, o.model);
done:
    rung_diagnostics_free(remarks);
    rung_dataset_free(data);
    rung_model_free(quantized);
    rung_model_free(model);
    options_free(&o);
    return status;
}

const command cmd_quantize = {
    "quantize", "float32 to int8: calibrates on data, writes a standard ONNX file",
    "Usage: rung quantize MODEL -o OUT --mode static --data D [options]\n\n"
    "Static post-training quantization: runs the float model over the data, chooses the range of\n"
    "every activation, and writes OUT with QuantizeLinear and DequantizeLinear pairs: int8 weights\n"
    "(symmetric, one scale per output channel), 8-bit activations, int32 biases.\n\n"
    "  -o, --output FILE      the quantized model\n"
    "  --mode static          the default\n"
    "  --data D               samples to calibrate on: FORMAT:PATH[,PATH][@A:B], FORMAT one of\n"
    "                         images, npz, npy, idx, cifar10, random; or a path that says it\n"
    "  --samples N            use N of them, chosen by --seed (default: all)\n"
    "  --seed N               default 0\n"
    "  --preprocess TEXT      what is done to images; kept in OUT as rung.preprocess:\n"
    "                         resize=256,crop=224,scale=255,mean=M:M:M,std=S:S:S,color=rgb|bgr|gray\n"
    "  --range METHOD         minmax, ema, percentile, entropy, mse (default)\n"
    "  --percentile P         for --range percentile, default 99.99\n"
    "  --act-type TYPE        uint8 (default) or int8\n"
    "  --act-symmetric        zero point in the middle of the type\n"
    "  --weight-scheme S      per-channel (default) or per-tensor\n"
    "  --exclude P,P...       nodes (names) or operator types left in float; * and ? match\n"
    "  --ops T,T...           quantize these operator types only\n"
    "  --threads N            default: all processors\n"
    "  --batch N              samples at a time; default by the model's size\n"
    "  --quiet                no progress\n\n"
    "Examples:\n"
    "  rung quantize resnet.onnx -o resnet_int8.onnx --data images:photos --samples 300 \\\n"
    "      --preprocess resize=256,crop=224,scale=255,mean=0.485:0.456:0.406,"
    "std=0.229:0.224:0.225\n"
    "  rung quantize net.onnx -o net_int8.onnx --data npz:calibration.npz --range percentile\n"
    "  rung quantize net.onnx -o net_int8.onnx --data random --exclude 'head*,Softmax'\n",
    run,
};
