// `pyccl_sim trial`: see the text that --help prints.
#pragma once

namespace pyccl::sim {

int trial_main(int count, char** arguments);

}  // namespace pyccl::sim
