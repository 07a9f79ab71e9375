/* rung: quantization of ONNX networks and their execution in integer arithmetic.
 *
 * Every function that can fail returns a rung_status and writes one sentence (what, where, what to
 * do) into the caller's rung_error, which may be NULL. Handles are opaque; *_free takes NULL.
 * No global state: different handles may be used from different threads at once, one handle from
 * one thread at a time (a rung_model is only read by sessions, so sessions may share one).
 * Option structs begin with `size`, set by their initializer macro, so that they may grow; a zero
 * in every other field is the default. */
#ifndef RUNG_H
#define RUNG_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif

#if defined(__GNUC__)
#define RUNG_API __attribute__((visibility("default")))
#else
#define RUNG_API
#endif

#define RUNG_VERSION "0.1.0"

typedef enum rung_status {
    RUNG_OK = 0,
    RUNG_EMEMORY,      /* an allocation failed, or a bound on memory was reached */
    RUNG_EIO,          /* a file could not be read or written */
    RUNG_EFORMAT,      /* a file is not what it should be (ONNX, image, npy, JSON ...) */
    RUNG_EMODEL,       /* a well-formed model that breaks the rules of its operators */
    RUNG_EUNSUPPORTED, /* legal, but rung cannot do it */
    RUNG_EARGUMENT,    /* the caller's argument, option or data does not fit */
    RUNG_EINTERRUPTED, /* stopped at the caller's wish */
} rung_status;

/* The caller's own error text: always terminated, cut when too long. */
typedef struct rung_error {
    char message[1024];
} rung_error;

/* Element types carry ONNX's TensorProto.DataType numbers. */
typedef enum rung_dtype {
    RUNG_UNDEFINED = 0,
    RUNG_F32 = 1,
    RUNG_U8 = 2,
    RUNG_I8 = 3,
    RUNG_U16 = 4,
    RUNG_I16 = 5,
    RUNG_I32 = 6,
    RUNG_I64 = 7,
    RUNG_STRING = 8,
    RUNG_BOOL = 9,
    RUNG_F16 = 10,
    RUNG_F64 = 11,
    RUNG_U32 = 12,
    RUNG_U64 = 13,
    RUNG_COMPLEX64 = 14,
    RUNG_COMPLEX128 = 15,
    RUNG_BF16 = 16,
    RUNG_F8E4M3FN = 17,
    RUNG_F8E4M3FNUZ = 18,
    RUNG_F8E5M2 = 19,
    RUNG_F8E5M2FNUZ = 20,
    RUNG_U4 = 21,
    RUNG_I4 = 22,
    RUNG_F4E2M1 = 23,
    RUNG_F8E8M0 = 24,
    RUNG_U2 = 25,
    RUNG_I2 = 26,
    RUNG_F6E2M3 = 27,
    RUNG_F6E3M2 = 28,
} rung_dtype;

#define RUNG_MAX_RANK 8

/* A dense row-major tensor in ONNX's dimension order. 4-bit types hold two elements a byte, the
 * first in the low half (2-bit types four a byte, 6-bit types four in three bytes, lowest bits
 * first). Who owns `data` is said where a tensor is passed. */
typedef struct rung_tensor {
    rung_dtype type;
    int        rank;
    int64_t    dims[RUNG_MAX_RANK];
    void      *data;
} rung_tensor;

/* Bytes of t->data; SIZE_MAX: dims that are negative or do not fit, a type without a fixed size
 * (RUNG_STRING), or t = NULL. */
RUNG_API size_t rung_tensor_bytes(const rung_tensor *t);

/* --- models ---------------------------------------------------------------------------------- */
typedef struct rung_model rung_model;

/* Reads an ONNX file (opset 7 or later; external data beside it). *out is the caller's. */
RUNG_API rung_status rung_model_load(const char *path, rung_model **out, rung_error *err);
/* The same from memory; a model with external data is refused. */
RUNG_API rung_status rung_model_load_memory(const void *data, size_t size, rung_model **out,
                                            rung_error *err);
/* Writes atomically. A model over 2 GB gets its tensors in PATH.data. */
RUNG_API rung_status rung_model_save(const rung_model *model, const char *path, rung_error *err);
RUNG_API void        rung_model_free(rung_model *model);

/* The inputs that a caller must feed, in the model's order (initializers are not among them). The
 * name is the model's; NULL: i is out of range. */
RUNG_API int         rung_model_n_inputs(const rung_model *model);
RUNG_API const char *rung_model_input_name(const rung_model *model, int i);

/* What the model is: as text for a person or as one JSON object (docs/cli.md lists its keys).
 * *text is the caller's: rung_text_free. */
RUNG_API rung_status rung_model_inspect(const rung_model *model, bool json, char **text,
                                        rung_error *err);
RUNG_API void        rung_text_free(char *text);

/* --- data ------------------------------------------------------------------------------------ */
typedef struct rung_dataset rung_dataset;

/* spec: FORMAT:PATH[,PATH][@A:B] or a plain path (docs/cli.md). preprocess: its text form, or NULL:
 * the one stored in the model (metadata rung.preprocess), or none. model also tells `random` what a
 * sample looks like; it may be NULL otherwise, and need not outlive the call. */
RUNG_API rung_status rung_dataset_open(const char *spec, const char *preprocess,
                                       const rung_model *model, int n_threads, rung_dataset **out,
                                       rung_error *err);
RUNG_API size_t      rung_dataset_size(const rung_dataset *data);
RUNG_API bool        rung_dataset_is_random(const rung_dataset *data);
RUNG_API void        rung_dataset_free(rung_dataset *data);

/* --- quantization ---------------------------------------------------------------------------- */
typedef enum rung_range {
    RUNG_RANGE_DEFAULT = 0, /* the qconfig's (mse) */
    RUNG_RANGE_MINMAX,      /* the smallest and largest value seen */
    RUNG_RANGE_EMA,         /* moving average of each batch's minimum and maximum (factor 0.01) */
    RUNG_RANGE_PERCENTILE,  /* see rung_quant_options.percentile */
    RUNG_RANGE_ENTROPY,     /* smallest KL divergence (Migacz 2017) */
    RUNG_RANGE_MSE,         /* smallest mean squared error over the histogram */
} rung_range;

/* What is done beyond rounding to the nearest (docs/methods.md); bits that may be joined. */
typedef enum rung_method {
    RUNG_METHOD_AUTO = 0,     /* the cheap ones, each kept only where it measurably helps */
    RUNG_METHOD_NONE = 1,
    RUNG_METHOD_EQUALIZE = 2, /* cross-layer equalization (Nagel 2019) */
    RUNG_METHOD_BIAS = 4,     /* empirical bias correction (Nagel 2019) */
    RUNG_METHOD_CLIP = 8,     /* weight scales of least squared error */
    RUNG_METHOD_ADAROUND = 16, /* learned rounding (Nagel 2020) */
    RUNG_METHOD_GPTQ = 32,    /* rounding with error feedback (Frantar 2022) */
    RUNG_METHOD_SMOOTH = 64,  /* factors from activations to weights (Xiao 2022): static, dynamic */
    RUNG_METHOD_AWQ = 128,    /* factors by the activations' size (Lin 2023): weight-only */
    RUNG_METHOD_HQQ = 256,    /* half-quadratic zero points (Badri 2023), no data: weight-only */
    RUNG_METHOD_TAIL = 512,   /* what only comes behind the last layers stays float: static */
    RUNG_METHOD_ABSORB = 1024, /* high biases move to the next layer (Nagel 2019): static */
} rung_method;

/* What static quantization puts Q/DQ pairs at. */
typedef enum rung_pairs {
    RUNG_PAIRS_AUTO = 0, /* layers, where most of the model is attention; all otherwise */
    RUNG_PAIRS_ALL,      /* every operator that has an integer form */
    RUNG_PAIRS_LAYERS,   /* the inputs of layers with weights: all between them stays float */
} rung_pairs;

/* Processes that work on one thing together, each with its share: below, at training. */
typedef struct rung_ranks rung_ranks;

typedef struct rung_quant_options {
    size_t      size;        /* set by RUNG_QUANT_OPTIONS */
    rung_range  range;       /* how an activation's range is chosen */
    double      percentile;  /* for RUNG_RANGE_PERCENTILE, in percent; 0 = 99.99 */
    rung_dtype  act_type;    /* uint8, int8, uint16 or int16; 0 = the qconfig's (RUNG_U8) */
    bool        act_symmetric; /* zero point at the middle of the type */
    bool        per_tensor;  /* one scale for a whole weight; otherwise one per output channel */
    const char *const *exclude; /* node names or operator types to leave in float; * and ? match */
    int         n_exclude;
    const char *const *ops;  /* operator types to quantize; none given: all that rung knows */
    int         n_ops;
    size_t      samples;     /* of the calibration set, chosen by seed; 0 = all */
    uint64_t    seed;
    int         n_threads;   /* 0 = all processors */
    int         batch;       /* samples at a time; 0 = chosen by the model's size */
    bool        quiet;       /* no progress on standard error */
    const char *preprocess;  /* to be stored in the model; NULL: keep what is stored */
    unsigned    methods;     /* of rung_method */
    int         weight_bits; /* 2 to 8, in an int8 container; 0 = 8. Weight-only: 4 or 8 */
    /* Weight-only: this many weights along the summed axis share a scale: 16 to 256, a power of
     * two; 0 = 32 for 4 bits, a whole channel for 8. */
    int         block;
    bool        weight_asymmetric; /* weight-only: uint4 or uint8 with zero points */
    /* A preset or a JSON file (docs/qconfig.md), NULL: "default". What is set here wins over it;
     * with a preset of another tool RUNG_METHOD_AUTO does no more than round to the nearest. */
    const char *qconfig;
    int         act_bits;     /* 2 to 8, in an 8-bit type; 0 = the qconfig's (8) */
    bool        reduce_range; /* activations' parameters are chosen for one bit less */
    /* These say aloud, against the qconfig, what false leaves open: affine activations, one weight
     * scale per output channel, all bits. */
    bool        act_affine, per_channel, full_range;
    rung_pairs  pairs; /* static */
    /* Dynamic and weight-only: samples for the methods that look at activations (smooth; gptq,
     * awq); must outlive the call. NULL: none. Static quantization is given its own. */
    struct rung_dataset *samples_of;
    /* Read by rung_quantize_mixed only. */
    double      max_drop; /* points of accuracy that may be lost on its `eval` */
    bool        fastest;  /* layers that are slower in int8 than in float here stay float */
    /* rung_quantize_static and rung_prepare_qat: each process calibrates on its share of the
     * samples, all get the same model. NULL: this process alone. */
    rung_ranks *ranks;
} rung_quant_options;
#define RUNG_QUANT_OPTIONS { .size = sizeof(rung_quant_options) }

/* A remark about one node or tensor: what was found, and what was done about it. */
typedef struct rung_diagnostic {
    const char *code;  /* "bias-overflow", "unseen-tensor" ...: docs/cli.md lists them */
    const char *where; /* the node's or tensor's name */
    const char *message;
} rung_diagnostic;
typedef struct rung_diagnostics rung_diagnostics;
RUNG_API size_t rung_diagnostics_count(const rung_diagnostics *d);
RUNG_API rung_diagnostic rung_diagnostics_get(const rung_diagnostics *d, size_t i);
RUNG_API void            rung_diagnostics_free(rung_diagnostics *d);

/* Static post-training quantization: calibrates on data and returns a new QDQ model. diagnostics
 * may be NULL; *out and *diagnostics are the caller's. */
RUNG_API rung_status rung_quantize_static(const rung_model *model, rung_dataset *data,
                                          const rung_quant_options *options, rung_model **out,
                                          rung_diagnostics **diagnostics, rung_error *err);

/* The same with layers of several precisions: as few as can be found get activations of 16 bits, or
 * stay float, so that accuracy on eval (labelled: top-1, otherwise agreement with the float model)
 * drops by at most max_drop points, measured on the model that comes out. eval = NULL: no such
 * budget. RUNG_OK also where the budget is not met: *out is then the best found, and rung_mixed_met
 * says so. *out and *mixed are the caller's. */
typedef struct rung_mixed rung_mixed;
RUNG_API rung_status rung_quantize_mixed(const rung_model *model, rung_dataset *data,
                                         rung_dataset *eval, const rung_quant_options *options,
                                         rung_model **out, rung_mixed **mixed,
                                         rung_diagnostics **diagnostics, rung_error *err);
/* True also where there was no budget. */
RUNG_API bool rung_mixed_met(const rung_mixed *mixed);
/* Which layers have more than 8 bits, their share of the work, drop, latency: for a person, or as
 * one JSON object (docs/cli.md lists its keys). *text is the caller's: rung_text_free. */
RUNG_API rung_status rung_mixed_text(const rung_mixed *mixed, bool json, char **text,
                                     rung_error *err);
RUNG_API void        rung_mixed_free(rung_mixed *mixed);

/* Without calibration. Dynamic: int8 weights (ops of MatMul, Gemm, both as Linear, which is the
 * default, and Conv), activations ranged when the model runs. Weights: integer weights of MatMul,
 * Gemm, Gather and Conv, activations stay float. Of the options only those of weights, names and
 * preprocess are read. */
RUNG_API rung_status rung_quantize_dynamic(const rung_model *model,
                                           const rung_quant_options *options, rung_model **out,
                                           rung_diagnostics **diagnostics, rung_error *err);
RUNG_API rung_status rung_quantize_weights(const rung_model *model,
                                           const rung_quant_options *options, rung_model **out,
                                           rung_diagnostics **diagnostics, rung_error *err);

/* --- execution ------------------------------------------------------------------------------- */
typedef struct rung_session rung_session;

typedef struct rung_session_options {
    size_t size;      /* set by RUNG_SESSION_OPTIONS */
    int    n_threads; /* 0 = all processors */
    int    batch;     /* for the model's unknown first dimensions; 0 = 1 */
    /* The dims of each input in the model's order (only .rank and .dims are read), NULL: the
     * declared ones. A dimension that stays unknown is an error that names it. */
    const rung_tensor *inputs;
    bool profile;     /* time every step */
} rung_session_options;
#define RUNG_SESSION_OPTIONS { .size = sizeof(rung_session_options) }

/* Plans the model for fixed input dims; the model may be freed afterwards. What a model's sessions
 * (one a thread, or one a batch size) pack of its integer weights is made by the first that needs
 * it and shared; it goes with the last of them. They may be created by several threads at once. */
RUNG_API rung_status rung_session_create(const rung_model *model,
                                         const rung_session_options *options, rung_session **out,
                                         rung_error *err);
RUNG_API void        rung_session_free(rung_session *s);
RUNG_API int         rung_session_n_inputs(const rung_session *s);
RUNG_API int         rung_session_n_outputs(const rung_session *s);
RUNG_API const char *rung_session_input_name(const rung_session *s, int i);
RUNG_API const char *rung_session_output_name(const rung_session *s, int i);
/* Type, dims and memory of input i (write there before a run) and output i (valid until the next
 * run); the memory is the session's. */
RUNG_API const rung_tensor *rung_session_input(const rung_session *s, int i);
RUNG_API const rung_tensor *rung_session_output(const rung_session *s, int i);
RUNG_API rung_status        rung_session_run(rung_session *s, rung_error *err);

/* One .npy array. *t is filled, t->data is the caller's: rung_npy_free. */
RUNG_API rung_status rung_npy_load(const char *path, rung_tensor *t, rung_error *err);
RUNG_API rung_status rung_npy_save(const char *path, const rung_tensor *t, rung_error *err);
RUNG_API void        rung_npy_free(rung_tensor *t);

/* --- measurement ----------------------------------------------------------------------------- */
typedef struct rung_eval_options {
    size_t size; /* set by RUNG_EVAL_OPTIONS */
    int    n_threads;
    int    batch; /* 0 = chosen by the model's size */
    bool   quiet;
    rung_ranks *ranks; /* each evaluates its share, all get the figures of all; NULL: alone */
} rung_eval_options;
#define RUNG_EVAL_OPTIONS { .size = sizeof(rung_eval_options) }

/* Accuracies in percent; -1 where it cannot be said (no labels, no reference, no class scores). */
typedef struct rung_eval_result {
    size_t samples;
    double top1, top5; /* of the first output's scores against the labels */
    double loss;       /* mean cross-entropy of softmax(first output); NaN: no labels */
    double agreement;  /* samples whose top-1 is the reference model's */
    double sqnr_db;    /* of the worst output: 10 log10(sum ref^2 / sum (ref - y)^2); NaN: none */
    double seconds;    /* wall time, data included */
} rung_eval_result;

/* reference may be NULL. detail (may be NULL): the sqnr of each output, "name": dB, as JSON. */
RUNG_API rung_status rung_eval(const rung_model *model, const rung_model *reference,
                               rung_dataset *data, const rung_eval_options *options,
                               rung_eval_result *result, char **detail, rung_error *err);

typedef struct rung_bench_options {
    size_t size; /* set by RUNG_BENCH_OPTIONS */
    int    n_threads, batch;
    double seconds;            /* of measuring; 0 = 2 */
    const rung_tensor *inputs; /* shapes and values, as in rung_session_options; NULL: random */
    bool   profile;            /* a table of steps in *text */
} rung_bench_options;
#define RUNG_BENCH_OPTIONS { .size = sizeof(rung_bench_options) }

typedef struct rung_bench_result {
    double  median_ms, p10_ms, p90_ms;
    int64_t macs;        /* of one run */
    double  gmacs_per_s; /* at the median */
    double  int_macs_share;
    int     threads, batch, runs;
    double  load_ms;     /* planning and packing */
    double  peak_rss_mb;
} rung_bench_result;

/* Latency on random or given input. text: NULL or the profile, the caller's (rung_text_free). */
RUNG_API rung_status rung_bench(const rung_model *model, const rung_bench_options *options,
                                rung_bench_result *result, char **text, rung_error *err);

typedef struct rung_compare_options {
    size_t   size; /* set by RUNG_COMPARE_OPTIONS */
    size_t   samples; /* of the data, chosen by seed; 0 = all */
    uint64_t seed;
    int      n_threads;
    double   seconds; /* of measuring latency; 0 = 1 */
    bool     quiet;
    const char *reference_title, *model_title, *data_title; /* what a report calls them */
    size_t   reference_bytes, model_bytes; /* sizes of the files; 0 = not known */
    /* Runs the rest of the float network behind each layer, which alone computes in integers, on up
     * to 64 of the samples: what it does to the output, and what it costs in time. */
    bool     sensitivity;
} rung_compare_options;
#define RUNG_COMPARE_OPTIONS { .size = sizeof(rung_compare_options) }

typedef struct rung_comparison rung_comparison;

/* Holds a quantized model against the float model that it was made from: the error of every
 * quantized tensor, layer by layer. *out is the caller's. */
RUNG_API rung_status rung_compare(const rung_model *reference, const rung_model *model,
                                  rung_dataset *data, const rung_compare_options *options,
                                  rung_comparison **out, rung_error *err);
/* For a person, or as one JSON object (docs/cli.md lists its keys): *text is the caller's,
 * rung_text_free. As one HTML page, written atomically. */
RUNG_API rung_status rung_comparison_text(const rung_comparison *c, bool json, char **text,
                                          rung_error *err);
RUNG_API rung_status rung_comparison_save_html(const rung_comparison *c, const char *path,
                                               rung_error *err);
RUNG_API void        rung_comparison_free(rung_comparison *c);

/* --- training -------------------------------------------------------------------------------- */

/* Quantization-aware training: a prepared model is the float model with FakeQuantize (a Q/DQ pair
 * on float32 weights) in it, with the parameters of rung_quantize_static; training moves weights,
 * biases and scales; convert makes the integer model, which computes what training computed, to the
 * bit. */
RUNG_API rung_status rung_prepare_qat(const rung_model *model, rung_dataset *data,
                                      const rung_quant_options *options, rung_model **out,
                                      rung_diagnostics **diagnostics, rung_error *err);
RUNG_API rung_status rung_convert(const rung_model *prepared, rung_model **out, rung_error *err);
RUNG_API bool        rung_is_prepared(const rung_model *model);

typedef enum rung_optimizer { RUNG_OPTIMIZER_ADAMW = 0, RUNG_OPTIMIZER_SGD } rung_optimizer;
typedef enum rung_schedule {
    RUNG_SCHEDULE_COSINE = 0, /* to 0 at the end */
    RUNG_SCHEDULE_STEP,
    RUNG_SCHEDULE_CONSTANT,
} rung_schedule;

/* How scales and zero points are trained. */
typedef enum rung_scales {
    RUNG_SCALES_DEFAULT = 0, /* as the qconfig of rung_prepare_qat has it: observed with the presets
                              * fbgemm, x86 and qnnpack, otherwise learned */
    RUNG_SCALES_LEARNED,  /* scales by gradient (LSQ); zero points stay */
    RUNG_SCALES_OBSERVED, /* by moving averages of minimum and maximum, as in PyTorch */
    RUNG_SCALES_FIXED,    /* as prepare chose them */
} rung_scales;

/* Numbers whose 0 has a meaning of its own are switched off by a negative one. */
typedef struct rung_train_options {
    size_t         size; /* set by RUNG_TRAIN_OPTIONS */
    size_t         epochs; /* 0 = 10 */
    size_t         batch;  /* samples of a step, of each process; 0 = 64 */
    rung_optimizer optimizer;
    double         rate;   /* the highest; 0 = 0.0005 (AdamW), 0.001 (SGD); float: 0.001, 0.01 */
    double         scale_rate; /* of scales, as a share of rate; 0 = 1 */
    double         momentum;   /* SGD; 0 = 0.9, Nesterov's unless plain_momentum is set */
    bool           plain_momentum;
    double         weight_decay; /* of weights only; 0 = 0.01 (AdamW), 0.0001 (SGD) */
    double         clip_norm;    /* longer gradients are scaled to this length; 0 = off */
    double         ema;      /* factor of a moving average of the parameters, which is what is used
                              * then; 0 = off */
    rung_schedule  schedule;
    double         warmup;   /* epochs over which the rate rises; 0 = none */
    double         step_epochs, step_factor; /* RUNG_SCHEDULE_STEP; 0 = a third of the run, 0.1 */
    /* The loss is a weighted sum. All four 0: cross-entropy where there are labels and, with a
     * teacher, distill and mse, each with weight 1. */
    double         cross_entropy; /* of the first output against the labels */
    double         distill; /* KL divergence from the teacher's outputs, times temperature^2 */
    double         mse;           /* squared error of outputs against the teacher's */
    double         features;      /* squared error of the tensors feature_names, relative */
    double         temperature;   /* of distill; 0 = 4 */
    double         label_smoothing;
    const char *const *feature_names; /* tensors of both models */
    int            n_features;
    const char    *augment; /* "crop=4,flip,cutout=8,mixup=0.2"; NULL = none */
    rung_scales    scales;
    size_t         freeze_scales; /* observed ones stay as they are after so many epochs; 0 = never;
                                   * rung_trainer: rung_trainer_freeze_scales */
    double         dampen;  /* of weights that swing between two codes (Nagel 2022); 0 = off */
    double         freeze_oscillating; /* weights whose code turns back in a larger share of steps
                                        * stay at their average code (Nagel 2022); 0 = off */
    /* Float training: epochs whose normalizations use the statistics of the batch; later ones use
     * the running statistics. 0 = all but the last quarter; negative: none. */
    int            batch_epochs;
    uint64_t       seed;
    int            n_threads; /* 0 = all processors; results do not depend on it (but for batch
                               * statistics) */
    /* Samples at a time within a step; 0 = chosen by the model's size. Where float training takes
     * statistics of the batch they are those of so many samples, or the next more that divide the
     * batch, and threads take such parts; 0 = the batch, on which all threads work together. */
    size_t         chunk;
    const char    *checkpoint; /* a folder; NULL = none are written */
    bool           resume;     /* from the checkpoint, where there is one */
    double         checkpoint_seconds; /* between two; 0 = 60 */
    const char    *metrics;    /* a file of JSON lines; NULL = none */
    int            eval_batch;
    bool           quiet;
    const char    *preprocess; /* to be stored in the model; NULL: keep what is stored */
    size_t         steps; /* rung_trainer: of the whole run, for the schedule; 0: constant rate */
    /* Processes that step together: docs/training.md. Process 0 alone writes checkpoint and metrics
     * and shows progress. rung_trainer_step: each is given samples of its own. NULL: alone. */
    rung_ranks    *ranks;
} rung_train_options;
#define RUNG_TRAIN_OPTIONS { .size = sizeof(rung_train_options) }

/* A whole run. model: prepared, or float (float training). teacher (NULL: none): a float model with
 * the same inputs and outputs. With eval (NULL: none) the best epoch is kept, the model before
 * training among them: by top-1, without labels by agreement with the teacher. *out is the
 * deployable model, *trained (NULL: not wanted) the same before convert. */
typedef struct rung_training rung_training;
/* What rung_train would refuse of options and teacher, by what the model declares; model may be the
 * float one, before rung_prepare_qat, which takes longer. */
RUNG_API rung_status rung_train_check(const rung_model *model, const rung_model *teacher,
                                      const rung_dataset *data, const rung_train_options *options,
                                      rung_error *err);
RUNG_API rung_status rung_train(const rung_model *model, const rung_model *teacher,
                                rung_dataset *data, rung_dataset *eval,
                                const rung_train_options *options, rung_model **out,
                                rung_model **trained, rung_training **record, rung_error *err);
/* For a person, or as one JSON object (docs/cli.md lists its keys): *text is the caller's. As one
 * HTML page with the learning curves, written atomically. */
RUNG_API rung_status rung_training_text(const rung_training *record, bool json, char **text,
                                        rung_error *err);
RUNG_API rung_status rung_training_save_html(const rung_training *record, const char *title,
                                             const char *path, rung_error *err);
/* Whether the model of the last epoch is worse than that before training on the evaluation data, by
 * loss and top-1, or without labels by SQNR and agreement: the rate is too high. */
RUNG_API bool        rung_training_diverged(const rung_training *record);
RUNG_API void        rung_training_free(rung_training *record);

/* Step by step, on the caller's own samples. model and teacher must outlive the trainer. */
typedef struct rung_trainer rung_trainer;
typedef struct rung_step_result {
    double loss;        /* mean over the samples, before the step */
    size_t correct;     /* samples whose largest score is the label */
    double norm;        /* of the gradient */
    double rate;
} rung_step_result;
RUNG_API rung_status rung_trainer_create(const rung_model *model, const rung_model *teacher,
                                         const rung_train_options *options, rung_trainer **out,
                                         rung_error *err);
/* inputs: one for each of the model, dims[0] samples, at most options.batch; labels: as many, or
 * NULL. Where numbers are not finite: RUNG_EMODEL, the step and the layer named, nothing moved. */
RUNG_API rung_status rung_trainer_step(rung_trainer *trainer, const rung_tensor *inputs,
                                       const int64_t *labels, rung_step_result *result,
                                       rung_error *err);
/* From now on observed scales and zero points stay as they are; others: no effect. */
RUNG_API rung_status rung_trainer_freeze_scales(rung_trainer *trainer, rung_error *err);
/* The model with the parameters as they are now (their average, with ema): for rung_convert. */
RUNG_API rung_status rung_trainer_save(const rung_trainer *trainer, rung_model **out,
                                       rung_error *err);
RUNG_API void        rung_trainer_free(rung_trainer *trainer);

/* --- several processes ------------------------------------------------------------------------ */

/* The group of all processes that mpirun started, for the options above. Once in a process; *out =
 * NULL, which every call takes: this process is alone. RUNG_EUNSUPPORTED: there are several, but
 * the library was built without MPI, or with another one than mpirun's. All make the same calls
 * with the same arguments. What fails in one fails in all, with the same sentence; after that the
 * group can only be freed. */
RUNG_API rung_status rung_ranks_create(rung_ranks **out, rung_error *err);
RUNG_API int         rung_ranks_index(const rung_ranks *ranks); /* from 0 */
RUNG_API int         rung_ranks_count(const rung_ranks *ranks);
/* To be called after what may fail in one process alone, and at the end: RUNG_OK where all give
 * that, otherwise all get the failure of the first that has one. */
RUNG_API rung_status rung_ranks_agree(rung_ranks *ranks, rung_status status, rung_error *err);
/* Waits for the others. */
RUNG_API void        rung_ranks_free(rung_ranks *ranks);

/* --- the decision ---------------------------------------------------------------------------- */

typedef enum rung_prefer { RUNG_PREFER_LATENCY = 0, RUNG_PREFER_SIZE } rung_prefer;

typedef struct rung_tune_options {
    size_t      size; /* set by RUNG_TUNE_OPTIONS */
    double      max_drop;    /* points of accuracy that may be lost on `eval` */
    double      time_budget; /* seconds of all trials; 0 = none. What has begun is ended, training
                              * has as many epochs as fit */
    rung_prefer prefer;      /* among the trials that keep the drop */
    bool        no_train;
    /* A folder, made where it is missing: a record and a model for each trial. Those of the same
     * model, data and settings are used again, so that an interrupted tune goes on. Wanted. */
    const char *work;
    /* Bits, types, names, samples (0 = 500), seed, threads; NULL: defaults. Methods are chosen. */
    const rung_quant_options *quant;
    const rung_train_options *train; /* NULL: defaults; its checkpoint and metrics are not read */
    const char *model_title, *data_title, *eval_title; /* what reports call them; data that is
                                                        * called otherwise is other data */
    bool        quiet;
    /* Percent of the work that static quantization has in the integers that are asked for, which a
     * model with layers in float or with 16-bit activations must keep to be recommended: with
     * fewer it is a row to compare with. 0 = 50; negative: any number is enough. */
    double      min_share;
} rung_tune_options;
#define RUNG_TUNE_OPTIONS { .size = sizeof(rung_tune_options) }

/* Post-training quantization from cheap to dear, then training, until accuracy on eval (labelled:
 * top-1, otherwise agreement with the float model) drops by at most max_drop points. data: to
 * calibrate and to train on. RUNG_OK also where that is not met: *out is then the best found, and
 * rung_tuning_met says so. *out and *tuning are the caller's (docs/tune.md). */
typedef struct rung_tuning rung_tuning;
RUNG_API rung_status rung_tune(const rung_model *model, rung_dataset *data, rung_dataset *eval,
                               const rung_tune_options *options, rung_model **out,
                               rung_tuning **tuning, rung_error *err);
RUNG_API bool rung_tuning_met(const rung_tuning *tuning);
/* Every trial and the recommendation: for a person, or as one JSON object (docs/cli.md lists its
 * keys); *text is the caller's: rung_text_free. As one HTML page, written atomically. */
RUNG_API rung_status rung_tuning_text(const rung_tuning *tuning, bool json, char **text,
                                      rung_error *err);
RUNG_API rung_status rung_tuning_save_html(const rung_tuning *tuning, const char *path,
                                           rung_error *err);
RUNG_API void        rung_tuning_free(rung_tuning *tuning);

/* --- the process ----------------------------------------------------------------------------- */
/* Whether RUNG_CPU (environment) names a level that this machine has: ref, avx2, avxvnni,
 * avx512vnni. */
RUNG_API rung_status rung_check_cpu(rung_error *err);
/* The processor's instruction sets, the integer kernels for them, and which of them run: a table,
 * or one JSON object (docs/cli.md lists its keys). *text is the caller's: rung_text_free. */
RUNG_API rung_status rung_cpu_text(bool json, char **text, rung_error *err);
/* Unlinks files that are half written. Async-signal-safe: for a handler of SIGINT and SIGTERM. */
RUNG_API void rung_remove_temporaries(void);
RUNG_API const char *rung_version(void);

#ifdef __cplusplus
}
#endif

#endif
