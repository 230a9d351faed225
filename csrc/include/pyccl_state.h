/* Shared state: named tensors with a revision, which all members hold bit for bit. A part of
 * pyccl.h, which includes this; what holds for every function there holds here. */
#ifndef PYCCL_STATE_H
#define PYCCL_STATE_H

#include <stddef.h>
#include <stdint.h>

#include "pyccl.h"

#ifdef __cplusplus
extern "C" {
#endif

typedef struct pyccl_shared_state pyccl_shared_state;

/* A tensor in the caller's memory: contiguous, at any alignment. */
typedef struct pyccl_tensor {
  const char* name;      /* no two of a state alike */
  void* data;            /* read and written by pyccl_sync; NULL only if there are no elements */
  const uint64_t* shape; /* `dimensions` of them; none: one element */
  size_t dimensions;
  pyccl_dtype dtype;
} pyccl_tensor;

/* Describes a state; the tensors' memory must stay valid and in its place until it is freed.
 * `revision`: what the tensors are at; the highest one wins a sync. `expect_next`: not 0: each sync
 * must go on by one revision from the one before; all members say the same.
 * `*state` is the caller's to free. Does not block. Errors: PYCCL_INVALID_ARGUMENT (two tensors of
 * one name, or that share memory). */
PYCCL_API pyccl_code pyccl_shared_state_create(const pyccl_tensor* tensors, size_t tensor_count,
                                               uint64_t revision, int expect_next,
                                               pyccl_shared_state** state);

/* Frees the handle, not the tensors. Not while a sync of it runs. NULL is ignored. */
PYCCL_API void pyccl_shared_state_free(pyccl_shared_state* state);

/* 0 for NULL. Waits for a sync of it that runs on another thread, as those below do; what is called
 * from inside the sync's own progress function may look only: set_revision and digest refuse. */
PYCCL_API uint64_t pyccl_shared_state_revision(const pyccl_shared_state* state);

/* The caller's word that the tensors are those of that revision. */
PYCCL_API pyccl_code pyccl_shared_state_set_revision(pyccl_shared_state* state, uint64_t revision);

/* Reads all tensors. 32 hex digits and a 0 that stand for names, types, shapes and bits: states are
 * equal if these are. */
PYCCL_API pyccl_code pyccl_shared_state_digest(pyccl_shared_state* state, char digest[33]);

/* 1 if a sync that failed has overwritten some tensors and had not all of them. Such a state is not
 * given to others, until a sync succeeds or its revision is set. 0 for NULL. */
PYCCL_API int pyccl_shared_state_is_void(const pyccl_shared_state* state);

/* Called now and then by the thread that is in pyccl_sync, with bytes that have been moved between
 * all members, and that are to be (0 while that is not known). Not 0: the sync is given up. */
typedef int (*pyccl_sync_function)(void* context, uint64_t moved, uint64_t to_move);

typedef struct pyccl_sync_options {
  pyccl_strategy strategy;      /* default PYCCL_POPULAR; members may differ */
  double timeout;               /* of each operation of the sync; those that are under way at once
                                   move no more than 32 MiB of tensors to a member; default -1:
                                   PYCCL_OPERATION_TIMEOUT */
  pyccl_sync_function progress; /* default NULL */
  void* progress_context;
} pyccl_sync_options;

PYCCL_API pyccl_sync_options pyccl_sync_options_default(void);

/* How a sync went. */
typedef struct pyccl_sync_info {
  uint64_t revision;
  char digest[33];
  uint64_t bytes_sent; /* payload, reports and all */
  uint64_t bytes_received;
  uint64_t blocks_fetched; /* that this member lacked: 1 MiB, or the rest of a tensor */
  uint64_t bytes_fetched;
  uint32_t attempts;     /* above 1: it began again because a member was lost */
  uint32_t behind;       /* how many had not the elected state: pyccl_sync_behind() tells who */
  uint32_t refuted;      /* how many have sent other bits than they had reported; none was taken */
  int32_t peers_pending; /* what pyccl_peers_pending() says after it */
  double seconds;
} pyccl_sync_info;

/* Brings the states of all members to one, bit for bit. All members call it in the same place of
 * their program; it begins with pyccl_update(), unless nothing of the whole group has been called
 * since the last one or since this peer was admitted. So who is admitted by it gets the state from
 * it. Meanwhile nobody may write to the tensors. Blocks until it has ended, for all alike.
 *
 * The highest revision wins that a member may send; among unlike states of that revision the one
 * that is sent only, else the one that most members have, else that of the lowest rank. Members
 * that have other bits fetch the blocks that differ from all who have them.
 *
 * After a failure the state has its old bits, or all of the new ones (its revision tells), or is
 * void; the old bits are kept where no more than 128 MiB were to be fetched. `info` may be NULL.
 * Errors: PYCCL_STATE_SYNC (schemas differ, nobody may send, send_only states in conflict, nobody
 * has a block any more, an unexpected revision), PYCCL_TIMEOUT, PYCCL_CANCELLED,
 * PYCCL_LIMIT_EXCEEDED (memory), PYCCL_INVALID_ARGUMENT (a subgroup; a sync runs already), and
 * those of pyccl_update(). */
PYCCL_API pyccl_code pyccl_sync(pyccl_communicator* communicator, pyccl_shared_state* state,
                                const pyccl_sync_options* options, pyccl_sync_info* info);

/* A member that had not the elected state. */
typedef struct pyccl_behind {
  uint64_t peer;
  int32_t rank;    /* when the sync ended; -1: lost since */
  int32_t drifted; /* not 0: it had that revision, with other bits */
  uint64_t revision;
} pyccl_behind;

/* Of the last sync of this state that succeeded, in the order of their ranks, lost ones first.
 * Errors: PYCCL_INVALID_ARGUMENT, also where `index` is not below pyccl_sync_info.behind. */
PYCCL_API pyccl_code pyccl_sync_behind(const pyccl_shared_state* state, uint32_t index,
                                       pyccl_behind* behind);

#ifdef __cplusplus
}
#endif

#endif
