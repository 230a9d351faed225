/* pyccl: fault-tolerant collective communication. The C99 API.
 *
 * A coordinator knows who takes part. Peers connect to it, are admitted into a view (the agreed,
 * ordered membership with an epoch that only rises) and reduce arrays together. When a peer dies,
 * the survivors agree on a view without it and finish what was under way: every survivor gets the
 * same outcome, and where it is a success the same bits.
 *
 *   pyccl_communicator *comm;
 *   if (pyccl_connect("10.0.0.1:48148", NULL, &comm) != PYCCL_OK) puts(pyccl_error_text());
 *   pyccl_all_reduce(comm, gradients, gradients, 1000, PYCCL_F32, NULL, NULL);
 *   if (pyccl_peers_pending(comm)) pyccl_update(comm, -1);
 *   pyccl_leave(comm, -1);
 *   pyccl_free(comm);
 *
 * What holds for every function:
 * - Threads: any thread may call anything on any handle at any time, unless it says otherwise. Only
 *   a handle's free function must be the last call on it. A thread of the library does the work, so
 *   operations go on while nobody waits for them.
 * - Blocking: only functions that say so block, and those for no longer than their timeout (plus
 *   the coordinator's decision, see pyccl_all_reduce). Signals do not interrupt them.
 * - Timeouts are seconds; below 0 means the default, NaN is refused. With 0 a call that would have
 * to wait ends with PYCCL_TIMEOUT; pyccl_connect refuses it.
 * - Failures come as a pyccl_code; pyccl_error_text() has the sentence that says what happened.
 *   Outputs behind pointers are set on success only. A NULL where a thing is needed, an enumeration
 *   out of its range and the like are PYCCL_INVALID_ARGUMENT and have no effect.
 * - Strings are UTF-8, end with 0 and are copied; addresses are "host:port" or "[v6]:port", names
 *   are resolved.
 * - A forked child must not use its parent's handles; calls on them fail with PYCCL_CLOSED. */
#ifndef PYCCL_H
#define PYCCL_H

#include <stddef.h>
#include <stdint.h>

#include "pyccl_types.h"

#if defined(__GNUC__)
#define PYCCL_API __attribute__((visibility("default")))
#else
#define PYCCL_API
#endif

#ifdef __cplusplus
extern "C" {
#endif

/* What a timeout below 0 stands for, in seconds. */
#define PYCCL_CONNECT_TIMEOUT 60
#define PYCCL_OPERATION_TIMEOUT 300

/* ---- errors and version --------------------------------------------------------------------- */

/* The sentence of the last failure on the calling thread; "" if there was none. Never NULL. Valid
 * until the thread's next call that fails; a success does not change it. */
PYCCL_API const char* pyccl_error_text(void);

/* "PYCCL_TIMEOUT" and so on; "unknown" for a number that is no code. Static, never NULL. */
PYCCL_API const char* pyccl_code_name(pyccl_code code);

/* The library's version, such as "1.2.3". Static. */
PYCCL_API const char* pyccl_version(void);

/* Called with one line of the log, one call at a time per handle, until the handle's close, stop or
 * free has returned; on a thread of the library or of a caller that waits in it. `text` is valid
 * during the call. Must not block for long, nor call functions on the handle that it belongs to. */
typedef void (*pyccl_log_function)(void* context, pyccl_log_level level, const char* text);

/* ---- coordinator ---------------------------------------------------------------------------- */

typedef struct pyccl_coordinator pyccl_coordinator;

typedef struct pyccl_coordinator_options {
  const char* bind;       /* default "127.0.0.1:48148"; port 0 picks a free one */
  const char* state_path; /* the file from which a restarted coordinator learns the run; default
                             NULL: the run ends with this coordinator */
  double heartbeat_limit; /* seconds of silence after which a peer counts as dead; default -1: 4.
                             The peers are told */
  pyccl_log_function log; /* default NULL: silent */
  void* log_context;
} pyccl_coordinator_options;

/* The defaults. Begin with these, so that a later version's new fields have sensible values. */
PYCCL_API pyccl_coordinator_options pyccl_coordinator_options_default(void);

/* Starts a coordinator on a thread of this process. It listens when the call returns. NULL options
 * are the defaults. Does not block, but for the resolver and the disk.
 * `*coordinator` is the caller's to free.
 * Errors: PYCCL_ADDRESS_IN_USE; PYCCL_IO for a state file that is damaged, held by another
 * coordinator or not writable (the text names it); PYCCL_INVALID_ARGUMENT. */
PYCCL_API pyccl_code pyccl_coordinator_start(const pyccl_coordinator_options* options,
                                             pyccl_coordinator** coordinator);

/* The address that peers connect to, with the port that was picked. Valid until the handle is
 * freed; NULL for a NULL handle. */
PYCCL_API const char* pyccl_coordinator_address(const pyccl_coordinator* coordinator);

/* Ends it at once; the address is free again when the call returns. Peers notice a coordinator that
 * is away: their operations go on, a restart on the same address and state file finds them again.
 * Blocks until the thread has ended, which takes milliseconds. May be called again; NULL is
 * ignored. */
PYCCL_API void pyccl_coordinator_stop(pyccl_coordinator* coordinator);

/* Stops it and frees the handle. NULL is ignored. Not from inside the log function. */
PYCCL_API void pyccl_coordinator_free(pyccl_coordinator* coordinator);

/* ---- communicator --------------------------------------------------------------------------- */

typedef struct pyccl_communicator pyccl_communicator;

typedef struct pyccl_connect_options {
  const char* group;        /* default "default"; the peers that reduce together */
  pyccl_role role;          /* default PYCCL_WORKER */
  uint32_t connections;     /* to each peer, 1 to 64; default 4 */
  const char* listen;       /* where other peers reach this one; default NULL: any free port, on the
                               loopback only if the coordinator is there, else on every interface */
  const char* advertise;    /* what to tell the others instead of that; default NULL */
  double timeout;           /* until admitted; default -1: PYCCL_CONNECT_TIMEOUT */
  double heartbeat_limit;   /* seconds without a word after which the coordinator is dialled again;
                               default -1: 4. The coordinator's limit counts if it is longer */
  double coordinator_limit; /* seconds for which the coordinator may be away, before the
                               communicator ends with PYCCL_COORDINATOR_UNAVAILABLE; default -1:
                               for ever, for it may be restarted */
  pyccl_transport transport; /* default PYCCL_TRANSPORT_AUTO */
  uint32_t spin_us; /* default 0, at most 1000000: so many microseconds a call that waits looks for
                       news without sleeping: less latency for a busy processor. For 100 it does
                       so in any case */
  pyccl_log_function log; /* default NULL: silent */
  void* log_context;
} pyccl_connect_options;

PYCCL_API pyccl_connect_options pyccl_connect_options_default(void);

/* Connects to the coordinator and blocks until this peer is a member of a view. The first peer of a
 * run is admitted at once, later ones when the members call pyccl_update(). NULL options are the
 * defaults. A coordinator that does not answer yet is tried again until the timeout.
 * `*communicator` is the caller's to free.
 * Errors: PYCCL_COORDINATOR_UNAVAILABLE, PYCCL_NOT_ADMITTED (refused, or the members did not reach
 * a boundary in time; the text says which), PYCCL_ADDRESS_IN_USE of `listen`,
 * PYCCL_PROTOCOL_VIOLATION for another version, PYCCL_INVALID_ARGUMENT. */
PYCCL_API pyccl_code pyccl_connect(const char* coordinator, const pyccl_connect_options* options,
                                   pyccl_communicator** communicator);

/* The membership as this peer knows it, all fields of one moment. */
typedef struct pyccl_view {
  uint64_t peer;              /* this peer's identity, unique for ever */
  int32_t rank;               /* its place in the group, from 0 */
  int32_t world_size;         /* members of the group */
  uint32_t epoch_incarnation; /* the view's number: which start of the coordinator, */
  uint32_t epoch_counter;     /* and which view of that; compare in this order */
} pyccl_view;

/* Does not block. A view changes inside pyccl_update(), and when a member is lost at any time.
 * Errors: why this peer is out if it is (PYCCL_CLOSED after leave or close, PYCCL_EVICTED, ...),
 * PYCCL_INVALID_ARGUMENT. */
PYCCL_API pyccl_code pyccl_get_view(const pyccl_communicator* communicator, pyccl_view* view);

/* 1 if peers wait to be admitted, as known when the last operation ended that was waited for with
 * success; else 0. All members get the same value after the same operation, so "if pending, update"
 * takes all of them into pyccl_update() together. Does not block; 0 for NULL. For that promise one
 * thread alone decides on updates and waits for operations, in the same order on all members. */
PYCCL_API int pyccl_peers_pending(const pyccl_communicator* communicator);

/* The boundary at which waiting peers are admitted. All members call it, with no operation in
 * flight; blocks until all have and the new view is installed. Joiners that fail are left out
 * without harm to the members.
 * Errors: PYCCL_TIMEOUT, PYCCL_COORDINATOR_UNAVAILABLE, PYCCL_EVICTED, PYCCL_CLOSED,
 * PYCCL_INVALID_ARGUMENT. */
PYCCL_API pyccl_code pyccl_update(pyccl_communicator* communicator, double timeout);

/* Leaves in good order: the others go on without waiting for anything. Blocks until they know.
 * Afterwards everything but close and free fails with PYCCL_CLOSED; what was open fails so too.
 * This peer is out also if an error is returned. While the coordinator is away it goes without a
 * farewell, which is no error. Errors: PYCCL_TIMEOUT, PYCCL_EVICTED, PYCCL_CLOSED,
 * PYCCL_INVALID_ARGUMENT. */
PYCCL_API pyccl_code pyccl_leave(pyccl_communicator* communicator, double timeout);

/* Ends at once and without goodbye, the others see a death. Open works end with PYCCL_CLOSED; when
 * it returns, no memory of theirs is used any more. Blocks until the library's thread has ended,
 * which takes milliseconds. May be called again; NULL is ignored. */
PYCCL_API void pyccl_close(pyccl_communicator* communicator);

/* Closes it and frees the handle; its works stay valid until they are freed themselves. NULL is
 * ignored. Not from inside the log function. */
PYCCL_API void pyccl_free(pyccl_communicator* communicator);

/* ---- operations ----------------------------------------------------------------------------- */

/* The collectives, and the elements that an array's input and output have among n members. Where
 * there is a root, the others leave out what is said to be the root's. */
typedef enum pyccl_collective {
  PYCCL_ALL_REDUCE = 0,     /* c and c: the reduced inputs, everywhere */
  PYCCL_BARRIER = 1,        /* no arrays */
  PYCCL_ALL_GATHER = 2,     /* c and n * c: the inputs of all, by rank */
  PYCCL_ALL_TO_ALL = 3,     /* n * c and n * c: share i goes to rank i, what comes lies by rank */
  PYCCL_REDUCE_SCATTER = 4, /* n * c and c: the own share of the reduced inputs */
  PYCCL_BROADCAST = 5,      /* c and c: the root's input, everywhere; the others' is not read */
  PYCCL_REDUCE = 6,         /* c and, the root's, c: the reduced inputs, at the root */
  PYCCL_GATHER = 7,         /* c and, the root's, n * c: the inputs of all, by rank, at the root */
  PYCCL_SCATTER = 8,        /* the root's n * c, and c: share i of the root's input, at rank i */
  PYCCL_SEND = 9,           /* c and 0; the other side calls PYCCL_RECV with as many */
  PYCCL_EXCHANGE = 10,      /* c and c: the other's input; both name each other */
  PYCCL_RECV = 11           /* 0 and c */
} pyccl_collective;
#define PYCCL_COLLECTIVE_COUNT 12

/* For the rank of a PYCCL_RECV: from whichever member of the group, or of the subgroup, sends here
 * with this tag first, as things arrive; the sender calls the ordinary PYCCL_SEND. Receives of one
 * tag, those that name a rank too, get what comes in the order of their calls. A member whose send
 * has failed before counts as one that has sent: that is the error then. Members that are lost, or
 * join later, are not waited for; PYCCL_PEER_LOST if nobody else is left. If nobody has sent in
 * time, nobody else notices the call. */
#define PYCCL_ANY_SOURCE (-1)

/* One array of an operation: contiguous, at any alignment. With output == input the result of an
 * all_reduce, broadcast or reduce replaces the input. Otherwise no output may overlap anything else
 * of the operation, but for its own input where that is no all_reduce, broadcast or reduce. Of 0
 * elements the pointer does not matter. */
typedef struct pyccl_array {
  const void* input;
  void* output;
  uint64_t input_count; /* elements */
  uint64_t output_count;
  pyccl_dtype dtype;
} pyccl_array;

/* With what is usual: blocks of 256, scale and partial sums in f32, rounding to nearest. */
PYCCL_API pyccl_quantization pyccl_quantization_of(pyccl_codec codec);

/* All members give the same but for weight, timeout, and how quantization rounds. */
typedef struct pyccl_operation_options {
  pyccl_redop op;            /* default PYCCL_SUM; of all_reduce, reduce and reduce_scatter */
  double weight;             /* default 1; at least 0. sum and avg multiply by it, avg divides by
                                the sum of all; with 0 this peer takes part and adds nothing */
  uint32_t tag;              /* default 0. Operations of one tag match in the order of the calls */
  pyccl_on_loss on_loss;     /* default PYCCL_ON_LOSS_DEFAULT */
  pyccl_algorithm algorithm; /* default PYCCL_ALGORITHM_AUTO */
  double timeout;            /* default -1: PYCCL_OPERATION_TIMEOUT */
  pyccl_quantization quantization; /* default of codec PYCCL_CODEC_NONE */
} pyccl_operation_options;

PYCCL_API pyccl_operation_options pyccl_operation_options_default(void);

/* Any operation; what is not needed is 0. Read during the call only, the arrays' memory excepted.
 */
typedef struct pyccl_call {
  pyccl_collective collective;
  const pyccl_array* arrays; /* one operation with one outcome, of any types; not copied together */
  size_t array_count;
  int32_t rank;       /* of the root; for send, recv and exchange of the other side, for recv also
                         PYCCL_ANY_SOURCE */
  int32_t world_size; /* the members that the arrays were cut for, as pyccl_get_view() told, where
                         sizes or roles depend on that: if they have become fewer, the operation
                         fails with PYCCL_PEER_LOST. 0: not known, or indifferent */
  const uint64_t* counts; /* of a single array, instead of equal shares: elements of each rank's
                             share, alike on all members; of all_to_all what goes to each rank */
  const uint64_t* receive_counts; /* of all_to_all, with `counts`: what comes from each rank */
  const pyccl_operation_options* options; /* NULL: the defaults */
} pyccl_call;

/* How an operation went. */
typedef struct pyccl_operation_info {
  int32_t world_size;         /* contributors: members with a weight above 0 */
  int32_t members;            /* of the group in the view that committed it, or of the subgroup */
  uint32_t epoch_incarnation; /* that view's number */
  uint32_t epoch_counter;
  uint32_t attempts;     /* above 1: it began again because a member was lost */
  int32_t peers_pending; /* what pyccl_peers_pending() says after it */
  uint64_t bytes_sent;   /* payload of the last attempt */
  uint64_t bytes_received;
  double weight_sum;     /* over the contributors */
  double seconds;        /* from the call to its end */
  char algorithm[32];    /* what AUTO has chosen */
  double wire_ratio;     /* bytes_sent to what they would have been without quantization; else 1 */
  uint64_t bytes_packed; /* of bytes_sent: what zstd has compressed */
  double quantization_step; /* between neighbouring values of the quantized blocks that this peer
                          has made or read, where they lie farthest apart; else 0 */
  int32_t source; /* of PYCCL_RECV: the sender's rank when it was called, in the group or in the
                     subgroup; else -1 */
} pyccl_operation_info;

/* Runs an operation. All members of the group call it, or both sides of a pair, with types and
 * counts that fit together; where a result is defined for all, all get the same bits. Blocks until
 * the operation has ended here. If a member is lost meanwhile, the survivors start it again among
 * themselves, and `info` says how many contributed, or it fails, as on_loss has it; without its
 * root, and between two of which one is lost, it always fails. What is cut by rank (all_to_all,
 * reduce_scatter, scatter, and everything with counts) can't be retried; gathers that are retried
 * fill the first info->members shares.
 *
 * An operation ends alike at all members. So when the timeout has passed and this member might
 * already have been counted on, the coordinator decides, which takes up to 10 s more, or two and
 * a half times its heartbeat limit if that is longer.
 *
 * After a failure the inputs hold what they held before, in place too; a separate output is
 * undefined. `info` may be NULL.
 * Errors: PYCCL_MISMATCH (the text names both ranks and what they asked for), PYCCL_TIMEOUT (it
 * names the ranks that had not arrived), PYCCL_PEER_LOST, PYCCL_EVICTED, PYCCL_CANCELLED,
 * PYCCL_CLOSED, PYCCL_COORDINATOR_UNAVAILABLE (needed for a decision, and away),
 * PYCCL_LIMIT_EXCEEDED (too many operations open, too little memory at some member), and
 * PYCCL_INVALID_ARGUMENT, which all members get if a root does not exist or sizes don't fit the
 * members. */
PYCCL_API pyccl_code pyccl_run(pyccl_communicator* communicator, const pyccl_call* call,
                               pyccl_operation_info* info);

/* The same for one array. `options` and `info` may be NULL. `count` is the c of pyccl_collective;
 * `counts` are those of pyccl_call, `world_size` of them. Pointers that the collective ignores at
 * this rank may be NULL. */
PYCCL_API pyccl_code pyccl_all_reduce(pyccl_communicator* communicator, const void* input,
                                      void* output, uint64_t count, pyccl_dtype dtype,
                                      const pyccl_operation_options* options,
                                      pyccl_operation_info* info);
PYCCL_API pyccl_code pyccl_reduce(pyccl_communicator* communicator, const void* input, void* output,
                                  uint64_t count, pyccl_dtype dtype, int32_t root,
                                  const pyccl_operation_options* options,
                                  pyccl_operation_info* info);
PYCCL_API pyccl_code pyccl_broadcast(pyccl_communicator* communicator, void* data, uint64_t count,
                                     pyccl_dtype dtype, int32_t root,
                                     const pyccl_operation_options* options,
                                     pyccl_operation_info* info);
PYCCL_API pyccl_code pyccl_all_gather(pyccl_communicator* communicator, const void* input,
                                      void* output, uint64_t count, int32_t world_size,
                                      pyccl_dtype dtype, const pyccl_operation_options* options,
                                      pyccl_operation_info* info);
PYCCL_API pyccl_code pyccl_all_gather_v(pyccl_communicator* communicator, const void* input,
                                        void* output, const uint64_t* counts, int32_t world_size,
                                        pyccl_dtype dtype, const pyccl_operation_options* options,
                                        pyccl_operation_info* info);
PYCCL_API pyccl_code pyccl_gather(pyccl_communicator* communicator, const void* input, void* output,
                                  uint64_t count, int32_t world_size, pyccl_dtype dtype,
                                  int32_t root, const pyccl_operation_options* options,
                                  pyccl_operation_info* info);
PYCCL_API pyccl_code pyccl_reduce_scatter(pyccl_communicator* communicator, const void* input,
                                          void* output, uint64_t count, int32_t world_size,
                                          pyccl_dtype dtype, const pyccl_operation_options* options,
                                          pyccl_operation_info* info);
PYCCL_API pyccl_code pyccl_reduce_scatter_v(pyccl_communicator* communicator, const void* input,
                                            void* output, const uint64_t* counts,
                                            int32_t world_size, pyccl_dtype dtype,
                                            const pyccl_operation_options* options,
                                            pyccl_operation_info* info);
PYCCL_API pyccl_code pyccl_scatter(pyccl_communicator* communicator, const void* input,
                                   void* output, uint64_t count, int32_t world_size,
                                   pyccl_dtype dtype, int32_t root,
                                   const pyccl_operation_options* options,
                                   pyccl_operation_info* info);
PYCCL_API pyccl_code pyccl_all_to_all(pyccl_communicator* communicator, const void* input,
                                      void* output, uint64_t count, int32_t world_size,
                                      pyccl_dtype dtype, const pyccl_operation_options* options,
                                      pyccl_operation_info* info);
PYCCL_API pyccl_code pyccl_all_to_all_v(pyccl_communicator* communicator, const void* input,
                                        const uint64_t* send_counts, void* output,
                                        const uint64_t* receive_counts, int32_t world_size,
                                        pyccl_dtype dtype, const pyccl_operation_options* options,
                                        pyccl_operation_info* info);
/* Between two, who match by tag alone; nobody else is concerned. The other side is given by its
 * rank at the time of the call; one that there is no more is PYCCL_PEER_LOST. `from` may be
 * PYCCL_ANY_SOURCE. */
PYCCL_API pyccl_code pyccl_send(pyccl_communicator* communicator, const void* data, uint64_t count,
                                pyccl_dtype dtype, int32_t to,
                                const pyccl_operation_options* options, pyccl_operation_info* info);
PYCCL_API pyccl_code pyccl_recv(pyccl_communicator* communicator, void* data, uint64_t count,
                                pyccl_dtype dtype, int32_t from,
                                const pyccl_operation_options* options, pyccl_operation_info* info);
PYCCL_API pyccl_code pyccl_exchange(pyccl_communicator* communicator, const void* input,
                                    void* output, uint64_t count, pyccl_dtype dtype, int32_t peer,
                                    const pyccl_operation_options* options,
                                    pyccl_operation_info* info);

/* Returns when all members have called it with this tag, which then counts as an operation of that
 * tag. Blocks until then. Errors as of pyccl_run(). */
PYCCL_API pyccl_code pyccl_barrier(pyccl_communicator* communicator, uint32_t tag, double timeout);

/* An all_reduce of several arrays, of any types that `op` allows. */
PYCCL_API pyccl_code pyccl_all_reduce_list(pyccl_communicator* communicator,
                                           const pyccl_array* arrays, size_t array_count,
                                           const pyccl_operation_options* options,
                                           pyccl_operation_info* info);

/* ---- subgroups ------------------------------------------------------------------------------ */

/* A handle for operations among some members only: those of these ranks, which have ranks from 0 in
 * this order; the caller must be one of them. Each of them makes it, with the same ranks and name;
 * the name (NULL is "") tells subgroups of the same members apart. Nothing is sent and nobody
 * waited for. Once a member of it is lost, it is of no more use: operations on it and
 * pyccl_get_view(), which otherwise tells the rank and the size in it, fail with PYCCL_PEER_LOST.
 *
 * Everything that takes a communicator takes a subgroup, too, but pyccl_update() and pyccl_leave()
 * refuse it, and pyccl_close() ignores it. A subgroup of a subgroup is a subgroup of the group.
 * `*subgroup` is the caller's to free, with pyccl_free(), which ends nothing; it may outlive the
 * communicator's handle. Does not block. Errors: PYCCL_INVALID_ARGUMENT, PYCCL_CLOSED,
 * PYCCL_EVICTED, PYCCL_PEER_LOST. */
PYCCL_API pyccl_code pyccl_subgroup(pyccl_communicator* communicator, const int32_t* ranks,
                                    size_t rank_count, const char* name,
                                    pyccl_communicator** subgroup);

/* ---- operations that run while the caller does something else ------------------------------- */

/* An operation under way. It belongs to whoever started it, who frees it. */
typedef struct pyccl_work pyccl_work;

/* Starts an operation and returns at once. The arrays' memory belongs to the operation until it has
 * ended: it must stay valid, inputs must not be written and outputs not be touched. What is wrong
 * with the request shows when the work is waited for, but for PYCCL_INVALID_ARGUMENT of NULLs,
 * enumerations and ranks of the other side of a pair, which shows here. */
PYCCL_API pyccl_code pyccl_start(pyccl_communicator* communicator, const pyccl_call* call,
                                 pyccl_work** work);

/* An all_reduce of the list, started like that. */
PYCCL_API pyccl_code pyccl_all_reduce_async(pyccl_communicator* communicator,
                                            const pyccl_array* arrays, size_t array_count,
                                            const pyccl_operation_options* options,
                                            pyccl_work** work);

/* Blocks until the operation has ended, but no longer than the timeout (0 only looks). Any number
 * of times, from any number of threads.
 * Returns what the blocking call would have returned; or, with the operation still going on,
 * PYCCL_TIMEOUT, for which pyccl_work_done() then says 0. */
PYCCL_API pyccl_code pyccl_work_wait(pyccl_work* work, double timeout);

/* 1 if the operation has ended, well or not. Does not block; 0 for NULL. */
PYCCL_API int pyccl_work_done(const pyccl_work* work);

/* How it went. Does not block. Errors: that of the operation; PYCCL_INVALID_ARGUMENT while it has
 * not ended. */
PYCCL_API pyccl_code pyccl_work_info(const pyccl_work* work, pyccl_operation_info* info);

/* Gives the operation up; the other members' fails with PYCCL_CANCELLED then. Does not block. The
 * work ends soon, with PYCCL_CANCELLED or, if this member had already been counted on, as it ends
 * for the others. Does nothing if it has ended; NULL is ignored. */
PYCCL_API void pyccl_work_cancel(pyccl_work* work);

/* Frees the handle. An operation that has not ended is cancelled first, and the call blocks until
 * it has: no memory of it is in use when this returns. NULL is ignored. The last call on it. */
PYCCL_API void pyccl_work_free(pyccl_work* work);

#ifdef __cplusplus
}
#endif

/* ---- shared state --------------------------------------------------------------------------- */
#include "pyccl_state.h"

#endif
