/* The enumerations and limits of pyccl.h, which includes this. The one place where they are
 * defined: the C++ core aliases them, the Python bindings export them. */
#ifndef PYCCL_TYPES_H
#define PYCCL_TYPES_H

#include <stdint.h>

/* Why a call did not succeed. Zero is success. */
typedef enum pyccl_code {
  PYCCL_OK = 0,
  PYCCL_INVALID_ARGUMENT = 1,        /* the caller's fault; nothing was sent */
  PYCCL_MISMATCH = 2,                /* peers called one operation with different descriptors */
  PYCCL_PEER_LOST = 3,               /* a peer died and the operation was not to be retried */
  PYCCL_TIMEOUT = 4,                 /* the deadline passed; the text names who had not arrived */
  PYCCL_COORDINATOR_UNAVAILABLE = 5, /* the coordinator can't be reached and is needed */
  PYCCL_NOT_ADMITTED = 6,            /* the coordinator or the members refused this peer */
  PYCCL_EVICTED = 7,                 /* the others went on without this peer */
  PYCCL_CANCELLED = 8,               /* the operation was given up by a caller */
  PYCCL_CLOSED = 9,                  /* used after leave or close */
  PYCCL_ADDRESS_IN_USE = 10,
  PYCCL_LIMIT_EXCEEDED = 11,
  PYCCL_PROTOCOL_VIOLATION = 12, /* the other side does not speak this version of pyccl */
  PYCCL_IO = 13,
  PYCCL_STATE_SYNC = 14 /* shared state that can't be brought to one; the text says why */
} pyccl_code;

typedef enum pyccl_dtype {
  PYCCL_F32 = 0,
  PYCCL_F64 = 1,
  PYCCL_F16 = 2,
  PYCCL_BF16 = 3,
  PYCCL_I8 = 4,
  PYCCL_I16 = 5,
  PYCCL_I32 = 6,
  PYCCL_I64 = 7,
  PYCCL_U8 = 8,
  PYCCL_U16 = 9,
  PYCCL_U32 = 10,
  PYCCL_U64 = 11
} pyccl_dtype;
#define PYCCL_DTYPE_COUNT 12

typedef enum pyccl_redop {
  PYCCL_SUM = 0,
  PYCCL_AVG = 1, /* floating point only */
  PYCCL_PROD = 2,
  PYCCL_MIN = 3, /* NaN propagates */
  PYCCL_MAX = 4,
  PYCCL_BAND = 5, /* bit operations: integers only */
  PYCCL_BOR = 6,
  PYCCL_BXOR = 7
} pyccl_redop;
#define PYCCL_REDOP_COUNT 8

/* What the survivors of a lost peer do with an operation that nobody has committed. */
typedef enum pyccl_on_loss {
  PYCCL_ON_LOSS_DEFAULT = -1, /* retry of all_reduce, reduce, broadcast and barrier, else raise */
  PYCCL_ON_LOSS_RETRY = 0,    /* it begins again among them */
  PYCCL_ON_LOSS_RAISE = 1     /* it fails with PYCCL_PEER_LOST at all of them */
} pyccl_on_loss;

typedef enum pyccl_role { PYCCL_WORKER = 0, PYCCL_MIRROR = 1 } pyccl_role;

typedef enum pyccl_transport {
  PYCCL_TRANSPORT_AUTO = 0, /* shared memory between peers that have it in common, else TCP */
  PYCCL_TRANSPORT_TCP = 1
} pyccl_transport;
#define PYCCL_TRANSPORT_COUNT 2

typedef enum pyccl_algorithm {
  PYCCL_ALGORITHM_AUTO = 0,
  PYCCL_ALGORITHM_RING = 1,
  PYCCL_ALGORITHM_DIRECT = 2,
  PYCCL_ALGORITHM_ONE_SHOT = 3, /* small messages: everybody sends everything to everybody */
  PYCCL_ALGORITHM_RECURSIVE_DOUBLING = 4,
  PYCCL_ALGORITHM_HALVING_DOUBLING = 5,
  PYCCL_ALGORITHM_BINOMIAL = 6,
  PYCCL_ALGORITHM_CHAIN = 7
} pyccl_algorithm;
#define PYCCL_ALGORITHM_COUNT 8

/* How numbers travel that are sent with fewer bits: csrc/kernels/quantize.hpp says what each does
 * to a number, and how far it may be off. */
typedef enum pyccl_codec {
  PYCCL_CODEC_NONE = 0,
  PYCCL_CODEC_INT8 = 1,        /* -127..127 times the step */
  PYCCL_CODEC_INT8_MINMAX = 2, /* the least number plus 0..255 times the step */
  PYCCL_CODEC_INT4 = 3,        /* -7..7 times the step */
  PYCCL_CODEC_INT4_MINMAX = 4, /* the least number plus 0..15 times the step */
  PYCCL_CODEC_FP8_E4M3 = 5,
  PYCCL_CODEC_FP8_E5M2 = 6,
  PYCCL_CODEC_FP4_E3M0 = 7,
  PYCCL_CODEC_FP4_E2M1 = 8
} pyccl_codec;
#define PYCCL_CODEC_COUNT 9

typedef enum pyccl_rounding {
  PYCCL_ROUNDING_NEAREST = 0,   /* of two equally near the one with the even code */
  PYCCL_ROUNDING_STOCHASTIC = 1 /* up or down by chance, right on average */
} pyccl_rounding;
#define PYCCL_ROUNDING_COUNT 2

/* What a member does in pyccl_sync. */
typedef enum pyccl_strategy {
  PYCCL_POPULAR = 0,     /* gives its state where it is the elected one, else takes that */
  PYCCL_SEND_ONLY = 1,   /* is never overwritten */
  PYCCL_RECEIVE_ONLY = 2 /* is never elected, and gives nothing */
} pyccl_strategy;
#define PYCCL_STRATEGY_COUNT 3

typedef enum pyccl_log_level {
  PYCCL_LOG_DEBUG = 0,
  PYCCL_LOG_INFO = 1,
  PYCCL_LOG_WARNING = 2,
  PYCCL_LOG_ERROR = 3
} pyccl_log_level;

/* How the payloads of an all_reduce, reduce_scatter, all_gather, broadcast or exchange of floating
 * point are sent with fewer bits. All members get the same bits: what one of them rounds, all take
 * from its bytes, that one too. */
typedef struct pyccl_quantization {
  pyccl_codec codec;       /* PYCCL_CODEC_NONE: the rest is ignored */
  uint32_t block;          /* numbers that share a scale: a multiple of 32 from 32 to 1024. Arrays
                              begin blocks of their own; a last block that is not full is sent
                              whole */
  pyccl_dtype scale;       /* PYCCL_F32, or PYCCL_BF16: 2 bytes less a block, steps up to 2^-7
                              larger */
  pyccl_dtype partial;     /* PYCCL_F32, or PYCCL_BF16: what sums on their way round a ring are
                              sent in */
  pyccl_rounding rounding; /* members may differ in this */
  int32_t zstd;  /* not 0: what is sent is compressed without loss, on links slow enough and as long
                    as it gets shorter; members may differ in this */
  uint64_t seed; /* and this: what is drawn for PYCCL_ROUNDING_STOCHASTIC follows from it
                    and the place of the number alone */
} pyccl_quantization;

#endif /* PYCCL_TYPES_H */
