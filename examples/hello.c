/* Two peers and a coordinator add up an array.
 *
 * Started without arguments this is the coordinator and the first peer; it starts itself again as
 * the second one. Peers on other machines would only need the address.
 *
 *   cc hello.c -lpyccl -o hello && ./hello */
#define _POSIX_C_SOURCE 200809L /* popen */
#include <pyccl.h>
#include <stdio.h>
#include <stdlib.h>

static void check(pyccl_code code, const char* what) {
  if (code == PYCCL_OK) return;
  fprintf(stderr, "%s: %s: %s\n", what, pyccl_code_name(code), pyccl_error_text());
  exit(1);
}

static void run_peer(const char* address, float value) {
  pyccl_communicator* comm;
  pyccl_view view = {0};
  pyccl_operation_info info;
  float x[4] = {value, value, value, value};

  check(pyccl_connect(address, NULL, &comm), "connect");
  for (;;) {
    check(pyccl_get_view(comm, &view), "view");
    if (view.world_size == 2) break;
    check(pyccl_update(comm, 10), "update"); /* lets the other peer in */
  }
  check(pyccl_all_reduce(comm, x, x, 4, PYCCL_F32, NULL, &info), "all-reduce");
  printf("rank %d: sum of %d peers is %g\n", (int)view.rank, (int)info.world_size, x[0]);
  fflush(stdout);
  check(pyccl_leave(comm, 10), "leave");
  pyccl_free(comm);
}

int main(int argc, char** argv) {
  pyccl_coordinator_options options = pyccl_coordinator_options_default();
  pyccl_coordinator* coordinator;
  char command[512];
  FILE* second;
  int status;

  if (argc == 2) {
    run_peer(argv[1], 2.0f);
    return 0;
  }
  options.bind = "127.0.0.1:0";
  check(pyccl_coordinator_start(&options, &coordinator), "coordinator");
  snprintf(command, sizeof command, "'%s' %s", argv[0], pyccl_coordinator_address(coordinator));
  second = popen(command, "w");
  run_peer(pyccl_coordinator_address(coordinator), 1.0f);
  status = second ? pclose(second) : 1;
  pyccl_coordinator_free(coordinator);
  return status != 0;
}
