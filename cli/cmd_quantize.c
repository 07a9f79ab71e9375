#include "cli.h"

#include <string.h>
#include <sys/stat.h>

enum { MODE_STATIC, MODE_DYNAMIC, MODE_WEIGHTS };
static const choice modes[] = { { "static", MODE_STATIC }, { "dynamic", MODE_DYNAMIC },
                              { "weights", MODE_WEIGHTS }, { NULL, 0 } };

/* Whether some layers may stay float. */
static bool is_mixed(const options *o)
{
    return o->eval || o->fastest;
}

static int check_mixed(const options *o, int mode)
{
    if (mode != MODE_STATIC && (is_mixed(o) || o->max_drop >= 0))
        return misused(&cmd_quantize, "--max-drop, --eval and --fastest are for --mode static");
    if (o->max_drop >= 0 && !o->eval)
        return misused(&cmd_quantize, "--eval is missing: the samples that --max-drop is held "
                       "against");
    if (o->eval && o->max_drop < 0)
        return misused(&cmd_quantize, "--max-drop is missing: the points of accuracy on --eval "
                       "that may be lost");
    return EXIT_GOOD;
}

static int take_options(const options *o, rung_quant_options *q, int *mode)
{
    if (!o->output)
        return misused(&cmd_quantize, "-o FILE is missing: where the quantized model goes");
    *mode = MODE_STATIC;
    if (!lookup(modes, o->mode, mode))
        return misused(&cmd_quantize, "--mode '%s': static, dynamic or weights is wanted", o->mode);
    if (*mode != MODE_WEIGHTS && (o->block || o->weight_asymmetric))
        return misused(&cmd_quantize, "--block and --weight-asymmetric are for --mode weights");
    if (*mode != MODE_STATIC && (o->qconfig || o->act_bits || o->reduce_range || o->pairs))
        return misused(&cmd_quantize, "--qconfig, --act-bits, --reduce-range and --pairs are for "
                       "--mode static");
    if (*mode == MODE_STATIC && !o->data)
        return misused(&cmd_quantize, "--data is missing: samples to calibrate on");
    const int status = quantization_options(&cmd_quantize, o, q);
    if (status != EXIT_GOOD)
        return status;
    q->max_drop = o->max_drop >= 0 ? o->max_drop : 0;
    q->fastest = o->fastest;
    return check_mixed(o, *mode);
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

static rung_status open_data(const options *o, const char *spec, const char *use,
                             const rung_model *model, rung_dataset **data, rung_error *err)
{
    const rung_status st = rung_dataset_open(spec, o->preprocess, model, (int)o->threads, data,
                                             err);
    if (st == RUNG_OK && rung_dataset_is_random(*data))
        fprintf(stderr, "remark: random-data: %s random data: sizes and speed are right, accuracy "
                        "is not\n", use);
    return st;
}

/* What a run makes. */
typedef struct product {
    rung_model       *model;
    rung_mixed       *mixed; /* NULL: all layers are quantized */
    rung_diagnostics *remarks;
} product;

static rung_status quantize_static(const options *o, const rung_quant_options *q,
                                   const rung_model *model, product *p, rung_error *err)
{
    rung_dataset *data = NULL, *eval = NULL;
    rung_status st = open_data(o, o->data, "calibrating on", model, &data, err);
    if (st == RUNG_OK && o->eval)
        st = open_data(o, o->eval, "evaluating on", model, &eval, err);
    if (st == RUNG_OK)
        st = is_mixed(o) ? rung_quantize_mixed(model, data, eval, q, &p->model, &p->mixed,
                                               &p->remarks, err)
                         : rung_quantize_static(model, data, q, &p->model, &p->remarks, err);
    rung_dataset_free(eval);
    rung_dataset_free(data);
    return st;
}

/* Dynamic or weight-only, with samples where they are given. */
static rung_status quantize_light(const options *o, const rung_quant_options *q, int mode,
                                  const rung_model *model, product *p, rung_error *err)
{
    rung_quant_options own = *q;
    rung_status st = RUNG_OK;
    if (o->data)
        st = open_data(o, o->data, "methods look at", model, &own.samples_of, err);
    if (st == RUNG_OK)
        st = mode == MODE_DYNAMIC
                 ? rung_quantize_dynamic(model, &own, &p->model, &p->remarks, err)
                 : rung_quantize_weights(model, &own, &p->model, &p->remarks, err);
    rung_dataset_free(own.samples_of);
    return st;
}

static rung_status quantize(const options *o, const rung_quant_options *q, int mode,
                            const rung_model *model, product *p, rung_error *err)
{
    return mode == MODE_STATIC ? quantize_static(o, q, model, p, err)
                               : quantize_light(o, q, mode, model, p, err);
}

/* Sizes, and the layers that stay float: to standard error, and with --json as an object. */
static int report(const options *o, const product *p)
{
    const long long before = file_bytes(o->model), after = file_bytes(o->output);
    char *text = NULL, *object = NULL;
    rung_error err;
    fprintf(stderr, "%s: %lld bytes, %.2f of %s\n", o->output, after,
            before ? (double)after / (double)before : 0.0, o->model);
    if (p->mixed && (rung_mixed_text(p->mixed, false, &text, &err) != RUNG_OK ||
                     rung_mixed_text(p->mixed, true, &object, &err) != RUNG_OK)) {
        rung_text_free(text);
        return failed(&cmd_quantize, &err);
    }
    if (text)
        fputs(text, stderr);
    if (o->json)
        printf("{\"bytes\": %lld, \"float_bytes\": %lld, \"remarks\": %zu, \"mixed\": %s}\n",
               after, before, rung_diagnostics_count(p->remarks), object ? object : "null");
    rung_text_free(text);
    rung_text_free(object);
    const int status = finish(&cmd_quantize);
    if (status != EXIT_GOOD || !p->mixed || rung_mixed_met(p->mixed))
        return status;
    fprintf(stderr, "rung quantize: --max-drop %g is not met while a layer is quantized: %s is the "
                    "best that was found; try --method with adaround, or more weight bits\n",
            o->max_drop, o->output);
    return EXIT_BUDGET;
}

static int run(int argc, char **argv)
{
    options o;
    rung_quant_options q;
    int mode = MODE_STATIC;
    rung_model *model = NULL;
    product p = { 0 };
    rung_error err;
    int status = options_parse(&cmd_quantize, argc, argv,
                               "output data mode range percentile act-type act-symmetric "
                               "weight-scheme qconfig pairs act-bits reduce-range weight-bits "
                               "weight-asymmetric block method exclude max-drop eval fastest "
                               "ops samples seed threads batch preprocess json quiet", &o);
    if (status != EXIT_GOOD || o.help || (status = take_options(&o, &q, &mode)) != EXIT_GOOD)
        goto done;
    rung_status st = rung_model_load(o.model, &model, &err);
    if (st == RUNG_OK)
        st = quantize(&o, &q, mode, model, &p, &err);
    print_remarks(p.remarks);
    if (st == RUNG_OK)
        st = rung_model_save(p.model, o.output, &err);
    status = st == RUNG_OK ? report(&o, &p) : failed(&cmd_quantize, &err);
done:
    rung_diagnostics_free(p.remarks);
    rung_mixed_free(p.mixed);
    rung_model_free(p.model);
    rung_model_free(model);
    options_free(&o);
    return status;
}

const command cmd_quantize = {
    "quantize", "float32 to int8 or int4: writes a standard ONNX file",
    "Usage: rung quantize MODEL -o OUT [--mode static] --data D [options]\n"
    "       rung quantize MODEL -o OUT --mode dynamic|weights [options]\n\n"
    "static   runs the float model over the data, chooses the range of every activation, and\n"
    "         writes QuantizeLinear and DequantizeLinear pairs: int8 weights (symmetric, one\n"
    "         scale per output channel), 8-bit activations, int32 biases\n"
    "dynamic  int8 weights; activations are ranged when the model runs; for matrix products\n"
    "         (transformers); data is not needed, but --method smooth uses it\n"
    "weights  integer weights, float activations: the file shrinks; data is not needed, but\n"
    "         --method gptq and awq use it\n\n"
    "  -o, --output FILE      the quantized model\n"
    "  --mode M               static (default), dynamic or weights\n"
    "  --exclude P,P...       nodes (names) or operator types left in float; * and ? match\n"
    "  --ops T,T...           quantize these operator types only. dynamic: MatMul, Gemm (both:\n"
    "                         Linear, the default), Conv; weights: MatMul, Gemm, Gather, Conv\n"
    "  --weight-scheme S      per-channel (default) or per-tensor (not of weights)\n"
    "  --weight-bits N        static: 2 to 8 (default), in an int8 container; weights: 4 or 8\n"
    "  --preprocess TEXT      what is done to images; kept in OUT as rung.preprocess:\n"
    "                         resize=256,crop=224,scale=255,mean=M:M:M,std=S:S:S,\n"
    "                         color=rgb|bgr|gray\n"
    "\nOf --mode weights:\n"
    "  --block N              so many weights along the summed axis share a scale: 16, 32, 64,\n"
    "                         128 or 256; default 32 for 4 bits, a whole channel for 8\n"
    "  --weight-asymmetric    uint4 or uint8 with zero points in place of symmetric int4 or int8\n"
    "  --method M,M...        auto (default): gptq with --data; or none, or of hqq, awq, gptq\n"
    "\nOf --mode dynamic:\n"
    "  --method M             auto (default): smooth with --data; none or smooth\n"
    "\nOf --mode static:\n"
    "  --data D               samples to calibrate on: FORMAT:PATH[,PATH][@A:B], FORMAT one of\n"
    "                         images, npz, npy, idx, cifar10, random; or a path that says it\n"
    "  --qconfig Q            a preset: default, x86, fbgemm, onednn, qnnpack (as in PyTorch),\n"
    "                         ort, tflite; or a JSON file with rules by node, operator, tensor\n"
    "                         (docs/qconfig.md). Other options win over it\n"
    "  --samples N            use N of them, chosen by --seed (default: all)\n"
    "  --seed N               default 0\n"
    "  --range METHOD         minmax, ema, percentile, entropy, mse (default)\n"
    "  --percentile P         for --range percentile, default 99.99\n"
    "  --act-type TYPE        uint8 (default), int8, uint16 or int16\n"
    "  --act-bits N           2 to 8 (default), in an 8-bit type\n"
    "  --reduce-range         ranges of activations for one bit less, as PyTorch's x86 has\n"
    "  --act-symmetric        zero point in the middle of the type\n"
    "  --pairs P              what is quantized: all operators that have an integer form, or\n"
    "                         layers (with weights, on their inputs; the rest stays float); auto\n"
    "                         (default): layers, where the model is attention for the most part\n"
    "  --method M,M...        auto (default): the cheap methods, each kept where it helps; none;\n"
    "                         or of equalize, absorb, bias, clip, gptq, adaround, smooth,\n"
    "                         tail\n"
    "  --max-drop P --eval D  as few layers as can be found get activations of 16 bits, or stay\n"
    "                         float, so that accuracy on --eval (top-1 with labels, else\n"
    "                         agreement with the float model) drops by at most P points; exit\n"
    "                         status 3 where it does not\n"
    "  --fastest              layers that are slower in int8 than in float on this machine stay\n"
    "                         float\n"
    "  --json                 one object on standard output: bytes, float_bytes, remarks, mixed\n"
    "  --threads N            default: all processors\n"
    "  --batch N              samples at a time; default by the model's size\n"
    "  --quiet                no progress\n\n"
    "Examples:\n"
    "  rung quantize resnet.onnx -o resnet_int8.onnx --data images:photos --samples 300 \\\n"
    "      --preprocess resize=256,crop=224,scale=255,mean=0.485:0.456:0.406,"
    "std=0.229:0.224:0.225\n"
    "  rung quantize net.onnx -o net_int8.onnx --data npz:calibration.npz --range percentile\n"
    "  rung quantize net.onnx -o net_int8.onnx --data random --exclude 'head*,Softmax'\n"
    "  rung quantize net.onnx -o net_int8.onnx --data images:train --samples 300 \\\n"
    "      --max-drop 0.5 --eval images:val\n"
    "  rung quantize bert.onnx -o bert_int8.onnx --mode dynamic\n"
    "  rung quantize bert.onnx -o bert_int4.onnx --mode weights --weight-bits 4 --block 32\n",
    run,
};
