/* The options of training, and what they come to. */
#include "cli.h"

#include <stdlib.h>
#include <string.h>

static bool take_text(train_words *t, int opt, const char *text)
{
    switch (opt) {
    case TRAIN_TEACHER: t->teacher = text; return true;
    case TRAIN_OPTIMIZER: t->optimizer = text; return true;
    case TRAIN_SCHEDULE: t->schedule = text; return true;
    case TRAIN_DISTILL: t->distill = text; return true;
    case TRAIN_FEATURES: t->features = text; return true;
    case TRAIN_AUGMENT: t->augment = text; return true;
    case TRAIN_CHECKPOINT: t->checkpoint = text; return true;
    case TRAIN_METRICS: t->metrics = text; return true;
    case TRAIN_PREPARED: t->prepared = text; return true;
    case TRAIN_FLOAT: t->is_float = true; return true;
    case TRAIN_RESUME: t->resume = true; return true;
    case TRAIN_SCALES: t->scales = text; return true;
    default: return false;
    }
}

bool train_take(train_words *t, int opt, const char *text)
{
    if (take_text(t, opt, text))
        return true;
    switch (opt) {
    case TRAIN_EPOCHS: return to_long(text, 1, 100000, &t->epochs);
    case TRAIN_CHUNK: return to_long(text, 1, 65536, &t->chunk);
    case TRAIN_BATCH_EPOCHS: return to_long(text, 0, 100000, &t->batch_epochs);
    case TRAIN_FREEZE_SCALES: return to_long(text, 1, 100000, &t->freeze_scales);
    case TRAIN_LR: return to_double(text, 1e-12, 1e3, &t->lr);
    case TRAIN_MOMENTUM: return to_double(text, 0, 0.9999, &t->momentum);
    case TRAIN_WEIGHT_DECAY: return to_double(text, 0, 10, &t->weight_decay);
    case TRAIN_CLIP: return to_double(text, 1e-12, 1e12, &t->clip);
    case TRAIN_WARMUP: return to_double(text, 0, 100000, &t->warmup);
    case TRAIN_EMA: return to_double(text, 0, 0.99999999, &t->ema);
    case TRAIN_LABEL_SMOOTHING: return to_double(text, 0, 0.99, &t->label_smoothing);
    case TRAIN_CROSS_ENTROPY: return to_double(text, 0, 1e6, &t->cross_entropy);
    case TRAIN_MSE: return to_double(text, 0, 1e6, &t->mse);
    case TRAIN_DAMPEN: return to_double(text, 0, 1e6, &t->dampen);
    case TRAIN_FREEZE_OSCILLATING: return to_double(text, 0, 0.99, &t->freeze_oscillating);
    default: return to_double(text, 0.01, 1e6, &t->checkpoint_seconds);
    }
}
