#include "cli.h"

#include <stdlib.h>
#include <string.h>

enum { CALIBRATION = 1000 }; /* samples that prepare looks at */

static const choice optimizers[] = { { "sgd", RUNG_OPTIMIZER_SGD },
                                     { "adamw", RUNG_OPTIMIZER_ADAMW }, { NULL, 0 } };
static const choice schedules[] = { { "cosine", RUNG_SCHEDULE_COSINE },
                                    { "step", RUNG_SCHEDULE_STEP },
                                    { "constant", RUNG_SCHEDULE_CONSTANT }, { NULL, 0 } };
static const choice scales[] = { { "learned", RUNG_SCALES_LEARNED },
                                 { "observed", RUNG_SCALES_OBSERVED },
                                 { "fixed", RUNG_SCALES_FIXED }, { NULL, 0 } };

/* --- options ---------------------------------------------------------------------------------- */

/* Of options whose 0 switches something off; the library takes 0 for its default. */
static double off_or(double v)
{
    return v < 0 ? 0 : v > 0 ? v : -1;
}

static double or_zero(double v)
{
    return v < 0 ? 0 : v;
}

/* "W" or "W,T". */
static bool take_distill(const char *text, rung_train_options *t)
{
    char *end;
    if (!text)
        return true;
    t->distill = strtod(text, &end);
    if (end == text || !(t->distill >= 0 && t->distill <= 1e6))
        return false;
    if (*end == '\0')
        return true;
    const char *second = end + 1;
    return *end == ',' && to_double(second, 1e-3, 1e3, &t->temperature);
}

/* "W:NAME,NAME...": names are cut out of a copy, which is the caller's. */
static bool take_features(const char *text, rung_train_options *t, char **copy, const char ***names)
{
    char *end;
    if (!text)
        return true;
    t->features = strtod(text, &end);
    if (end == text || *end != ':' || !(t->features > 0 && t->features <= 1e6))
        return false;
    *copy = strdup(end + 1);
    *names = calloc(strlen(end) + 1, sizeof **names);
    if (!*copy || !*names)
        return false;
    for (char *word = strtok(*copy, ","); word; word = strtok(NULL, ","))
        (*names)[t->n_features++] = word;
    t->feature_names = *names;
    return t->n_features > 0;
}

static void take_numbers(const options *o, rung_train_options *t)
{
    const train_words *w = &o->train;
    t->epochs = w->epochs > 0 ? (size_t)w->epochs : 0;
    t->batch = (size_t)o->batch;
    t->chunk = w->chunk > 0 ? (size_t)w->chunk : 0;
    t->rate = or_zero(w->lr);
    t->momentum = off_or(w->momentum);
    t->weight_decay = off_or(w->weight_decay);
    t->clip_norm = or_zero(w->clip);
    t->ema = or_zero(w->ema);
    t->warmup = or_zero(w->warmup);
    t->label_smoothing = or_zero(w->label_smoothing);
    t->cross_entropy = or_zero(w->cross_entropy);
    t->mse = or_zero(w->mse);
    t->dampen = or_zero(w->dampen);
    t->freeze_oscillating = or_zero(w->freeze_oscillating);
    t->checkpoint_seconds = or_zero(w->checkpoint_seconds);
    t->batch_epochs = w->batch_epochs == 0 ? -1 : w->batch_epochs > 0 ? (int)w->batch_epochs : 0;
}

/* What a call comes to; the two pointers are freed by run. */
typedef struct call {
    rung_quant_options quant;
    rung_train_options train;
    char              *feature_text;
    const char       **features;
} call;

static int check_modes(const options *o)
{
    const train_words *w = &o->train;
    if (!o->output)
        return misused(&cmd_train, "-o FILE is missing: where the trained model goes");
    if (!o->data)
        return misused(&cmd_train, "--data is missing: samples to train on");
    if (w->resume && !w->checkpoint)
        return misused(&cmd_train, "--resume wants --checkpoint DIR: where the run was kept");
    if (w->is_float && (o->qconfig || o->act_bits || o->weight_bits || o->range || o->method ||
                        o->act_type || o->weight_scheme || o->symmetric || o->reduce_range ||
                        w->scales || w->freeze_scales > 0 || w->prepared || w->dampen > 0 ||
                        w->freeze_oscillating > 0))
        return misused(&cmd_train, "--float trains the float model: options of quantization do not "
                       "go with it");
    if (!w->is_float && (w->batch_epochs >= 0 || w->chunk > 0))
        return misused(&cmd_train, "--batch-epochs and --chunk are for --float: quantization folds "
                       "normalizations");
    return EXIT_GOOD;
}

static int take_options(const options *o, call *c)
{
    const train_words *w = &o->train;
    int optimizer = 0, schedule = 0, scale_mode = RUNG_SCALES_DEFAULT, status = check_modes(o);
    if (status != EXIT_GOOD ||
        (status = quantization_options(&cmd_train, o, &c->quant)) != EXIT_GOOD)
        return status;
    c->quant.samples = o->samples ? (size_t)o->samples : CALIBRATION;
    c->quant.batch = 0; /* --batch is of a step */
    if (!lookup(optimizers, w->optimizer, &optimizer))
        return misused(&cmd_train, "--optimizer '%s': sgd or adamw is wanted", w->optimizer);
    if (!lookup(schedules, w->schedule, &schedule))
        return misused(&cmd_train, "--schedule '%s': cosine, step or constant is wanted",
                       w->schedule);
    if (!lookup(scales, w->scales, &scale_mode))
        return misused(&cmd_train, "--scales '%s': learned, observed or fixed is wanted",
                       w->scales);
    c->train = (rung_train_options){
        .size = sizeof c->train, .optimizer = (rung_optimizer)optimizer,
        .schedule = (rung_schedule)schedule, .augment = w->augment, .seed = (uint64_t)o->seed,
        .scales = (rung_scales)scale_mode,
        .freeze_scales = w->freeze_scales > 0 ? (size_t)w->freeze_scales : 0,
        .n_threads = (int)o->threads,
        .checkpoint = w->checkpoint, .resume = w->resume, .metrics = w->metrics, .quiet = o->quiet,
        .preprocess = o->preprocess,
    };
    take_numbers(o, &c->train);
    if (!take_distill(w->distill, &c->train))
        return misused(&cmd_train, "--distill '%s': WEIGHT or WEIGHT,TEMPERATURE is wanted",
                       w->distill);
    if (!take_features(w->features, &c->train, &c->feature_text, &c->features))
        return misused(&cmd_train, "--features '%s': WEIGHT:TENSOR,TENSOR... is wanted",
                       w->features);
    return EXIT_GOOD;
}

/* --- the run ---------------------------------------------------------------------------------- */

/* All that a run has at hand. */
typedef struct work {
    rung_model    *model, *teacher, *prepared, *out, *trained;
    rung_dataset  *data, *eval;
    rung_training *record;
    rung_ranks    *ranks; /* the processes that mpirun started; the first speaks and writes */
} work;

static bool is_first(const work *w)
{
    return rung_ranks_index(w->ranks) == 0;
}

static rung_status open_data(const options *o, const char *spec, const work *w,
                             rung_dataset **data, rung_error *err)
{
    const rung_status st = rung_dataset_open(spec, o->preprocess, w->model, (int)o->threads, data,
                                             err);
    if (st == RUNG_OK && is_first(w) && rung_dataset_is_random(*data))
        fprintf(stderr, "remark: random-data: training on random data: sizes and speed are right, "
                        "accuracy is not\n");
    return st;
}

static rung_status prepare(const options *o, const call *c, work *w, rung_error *err)
{
    rung_diagnostics *remarks = NULL;
    const rung_status st = rung_prepare_qat(w->model, w->data, &c->quant, &w->prepared, &remarks,
                                            err);
    for (size_t i = 0; is_first(w) && i < rung_diagnostics_count(remarks); i++) {
        const rung_diagnostic r = rung_diagnostics_get(remarks, i);
        fprintf(stderr, "remark: %s: %s: ", r.code, r.where);
        print_message(r.message);
    }
    rung_diagnostics_free(remarks);
    return st;
}

/* The float model teaches itself in integers, unless another one is named or none. */
static rung_status train(const options *o, const call *c, work *w, rung_error *err)
{
    const char *name = o->train.teacher;
    const bool none = name && strcmp(name, "none") == 0;
    rung_status st;
    if ((st = rung_model_load(o->model, &w->model, err)) != RUNG_OK ||
        (st = open_data(o, o->data, w, &w->data, err)) != RUNG_OK ||
        (o->eval && (st = open_data(o, o->eval, w, &w->eval, err)) != RUNG_OK) ||
        (name && !none && (st = rung_model_load(name, &w->teacher, err)) != RUNG_OK))
        return st;
    const bool prepares = !o->train.is_float && !rung_is_prepared(w->model);
    const rung_model *teacher = w->teacher ? w->teacher : prepares && !none ? w->model : NULL;
    if ((st = rung_train_check(w->model, teacher, w->data, &c->train, err)) != RUNG_OK ||
        (prepares && (st = prepare(o, c, w, err)) != RUNG_OK))
        return st;
    return rung_train(w->prepared ? w->prepared : w->model, teacher, w->data, w->eval, &c->train,
                      &w->out, &w->trained, &w->record, err);
}

static rung_status save(const options *o, const work *w, rung_error *err)
{
    rung_status st = rung_model_save(w->out, o->output, err);
    if (st == RUNG_OK && o->train.prepared)
        st = rung_model_save(w->trained, o->train.prepared, err);
    if (st == RUNG_OK && o->html)
        st = rung_training_save_html(w->record, o->model, o->html, err);
    return st;
}

static int report(const options *o, const work *w)
{
    char *text = NULL;
    rung_error err;
    if (rung_training_diverged(w->record))
        fprintf(stderr, "remark: training-diverged: after the last epoch the model is worse on "
                        "--eval than before training: lower the rate (--lr), or use --warmup or "
                        "--clip\n");
    if (rung_training_text(w->record, o->json, &text, &err) != RUNG_OK)
        return failed(&cmd_train, &err);
    fputs(text, stdout);
    rung_text_free(text);
    return finish(&cmd_train);
}

static rung_status train_and_save(const options *o, const call *c, work *w, rung_error *err)
{
    rung_status st = train(o, c, w, err);
    if (st == RUNG_OK && is_first(w))
        st = save(o, w, err);
    return rung_ranks_agree(w->ranks, st, err);
}

/* All processes end with the same status, and one sentence. */
static int run_ranks(const options *o, call *c, work *w)
{
    rung_error err;
    rung_status st = rung_ranks_create(&w->ranks, &err);
    c->quant.ranks = c->train.ranks = w->ranks;
    if (st == RUNG_OK)
        st = train_and_save(o, c, w, &err);
    if (!is_first(w))
        return st == RUNG_OK ? EXIT_GOOD : EXIT_FAILED;
    return st == RUNG_OK ? report(o, w) : failed(&cmd_train, &err);
}

static int run(int argc, char **argv)
{
    options o;
    call c = { 0 };
    work w = { 0 };
    int status = options_parse(&cmd_train, argc, argv,
                               "output html data eval teacher float epochs batch lr optimizer "
                               "schedule warmup momentum weight-decay clip ema distill "
                               "cross-entropy mse features label-smoothing augment checkpoint "
                               "checkpoint-seconds resume metrics prepared dampen batch-epochs "
                               "chunk scales freeze-scales freeze-oscillating range percentile "
                               "act-type act-symmetric "
                               "weight-scheme qconfig pairs act-bits reduce-range weight-bits "
                               "method exclude ops samples seed threads preprocess json quiet",
                               &o);
    if (status == EXIT_GOOD && !o.help && (status = take_options(&o, &c)) == EXIT_GOOD)
        status = run_ranks(&o, &c, &w);
    rung_training_free(w.record);
    rung_dataset_free(w.eval);
    rung_dataset_free(w.data);
    rung_model_free(w.trained);
    rung_model_free(w.out);
    rung_model_free(w.prepared);
    rung_model_free(w.teacher);
    rung_model_free(w.model);
    rung_ranks_free(w.ranks);
    free(c.features);
    free(c.feature_text);
    options_free(&o);
    return status;
}

const command cmd_train = {
    "train", "fine-tunes weights and scales so that the int8 model keeps its accuracy (QAT)",
    "Usage: rung train MODEL -o OUT --data D [--eval D] [options]\n"
    "       rung train MODEL -o OUT --data D --float [options]\n\n"
    "Quantization-aware training: MODEL (float32) is quantized as 'rung quantize' does, then its\n"
    "weights, biases and scales are trained through the integer arithmetic of the model that is\n"
    "written: what evaluation says while training is what OUT does. It learns from labels, where\n"
    "the data has them, and from the float model. --float trains the float model itself.\n"
    "'mpirun -n K rung train ...' trains with K processes: a step has K times --batch samples.\n\n"
    "  -o, --output FILE      the model to deploy\n"
    "  --data D               samples to train on, FORMAT:PATH[,PATH][@A:B] as in 'quantize'\n"
    "  --eval D               samples to choose the best epoch by: top-1, without labels\n"
    "                         agreement with the float model; epoch 0 is before training\n"
    "  --epochs N             default 10\n"
    "  --batch N              samples of a step, default 64; under mpirun of each process\n"
    "  --optimizer O          adamw (default) or sgd (with Nesterov's momentum)\n"
    "  --lr R                 the highest learning rate, default 0.0005 (adamw), 0.001 (sgd);\n"
    "                         with --float 0.001, 0.01\n"
    "  --schedule S           cosine (default), step (a tenth after each third of the run) or\n"
    "                         constant\n"
    "  --warmup E             epochs over which the rate rises from 0, default 0\n"
    "  --momentum M           of sgd, default 0.9\n"
    "  --weight-decay W       of weights only, default 0.01 (adamw), 0.0001 (sgd)\n"
    "  --clip L               longer gradients are scaled to length L\n"
    "  --ema F                uses a moving average of the parameters with factor F\n"
    "\nWhat it learns from (by default --cross-entropy 1 with labels, and with a teacher\n"
    "--distill 1,4 --mse 1):\n"
    "  --teacher MODEL|none   default: MODEL before quantization; with --float none\n"
    "  --cross-entropy W      weight of the labels; --label-smoothing S spreads a share S evenly\n"
    "  --distill W[,T]        weight of the teacher's outputs, at temperature T (default 4)\n"
    "  --mse W                weight of the squared error against the teacher's outputs\n"
    "  --features W:T,T...    weight of tensors T inside, which are to be the teacher's\n"
    "  --augment A            crop=PIXELS,flip,cutout=PIXELS,mixup=ALPHA: those that are wanted\n"
    "\nHow it is quantized (docs/qconfig.md; in training activations and weights of 2 to 8 bits):\n"
    "  --qconfig --weight-bits --act-bits --range --percentile --method --exclude --ops\n"
    "  --weight-scheme --act-type --act-symmetric --reduce-range --pairs\n"
    "                         as in 'rung quantize --help'\n"
    "  --samples N            that quantization looks at before training, default 1000\n"
    "  --scales S             learned (by gradient), observed (moving averages of minimum and\n"
    "                         maximum, as in PyTorch) or fixed; default: observed with --qconfig\n"
    "                         fbgemm, x86 or qnnpack, otherwise learned\n"
    "  --freeze-scales N      observed scales stay as they are after epoch N; default: never\n"
    "  --dampen W             pulls weights that swing between two codes to one, late in training\n"
    "  --freeze-oscillating T weights whose code turns back in more than a share T of the steps\n"
    "                         stay at their average code until the run ends\n"
    "  --prepared FILE        writes the trained model before it is made integer: a MODEL to go\n"
    "                         on from\n"
    "\nOf --float:\n"
    "  --batch-epochs N       epochs in which normalizations use the batch's statistics; later\n"
    "                         ones use the running ones; default all but the last quarter\n"
    "  --chunk N              statistics of parts of a batch, of N samples or the next more that\n"
    "                         divide it; threads take one part each. Default the batch\n"
    "\nThe run:\n"
    "  --checkpoint DIR       keeps the run in DIR, so that it can be resumed\n"
    "  --resume               goes on from there; the result is that of a run without a break\n"
    "  --checkpoint-seconds S between two, default 60; and after each epoch\n"
    "  --metrics FILE         a JSON object a line: steps and epochs\n"
    "  --html FILE            one page with the learning curves\n"
    "  --json                 one object on standard output; docs/cli.md lists its keys\n"
    "  --seed N               default 0\n"
    "  --threads N            default: all processors\n"
    "  --preprocess TEXT      default: the one stored in MODEL\n"
    "  --quiet                no progress\n\n"
    "Examples:\n"
    "  rung train net.onnx -o net_int8.onnx --data npz:train.npz --eval npz:val.npz\n"
    "  rung train net.onnx -o net_w4.onnx --data images:train --eval images:val \\\n"
    "      --weight-bits 4 --act-bits 4 --epochs 30 --augment crop=4,flip --checkpoint run\n"
    "  rung train net.onnx -o tuned.onnx --data idx:images.gz,labels.gz --float --lr 0.001\n",
    run,
};
