// PyTorch's distributed engine, c10d: a key-value store, process groups and the reducer of data-parallel training.

#include "guarded.h"

#include <ATen/ATen.h>
#include <c10/util/Logging.h>
#include <torch/csrc/distributed/c10d/PrefixStore.hpp>
#include <torch/csrc/distributed/c10d/ProcessGroup.hpp>
#include <torch/csrc/distributed/c10d/ProcessGroupGloo.hpp>
#include <torch/csrc/distributed/c10d/TCPStore.hpp>
#include <torch/csrc/distributed/c10d/comm.hpp>
#include <torch/csrc/distributed/c10d/reducer.hpp>
#ifdef USE_C10D_NCCL
#include <torch/csrc/distributed/c10d/ProcessGroupNCCL.hpp>
#endif

#include <algorithm>
#include <chrono>
#include <cstdlib>
#include <memory>
#include <string>
#include <unordered_map>
#include <vector>

using StoreHandle = c10::intrusive_ptr<c10d::Store>;
using GroupHandle = c10::intrusive_ptr<c10d::ProcessGroup>;
using std::chrono::milliseconds;

namespace {

std::vector<at::Tensor> list(at::Tensor *const *tensors, size_t count) {
  std::vector<at::Tensor> result;
  result.reserve(count);
  for (size_t i = 0; i < count; ++i) result.push_back(*tensors[i]);
  return result;
}

// Everything that c10d logs of a failure comes back as an error, too.
void keep_quiet() {
  if (std::getenv("TORCH_CPP_LOG_LEVEL") == nullptr) FLAGS_caffe2_log_level = c10::GLOG_FATAL;
}

} // namespace

extern "C" {

char *ext_store_connect(const char *host, uint16_t port, bool is_server, uint64_t timeout_ms, StoreHandle **result) {
  return guarded([&] {
    keep_quiet();
    c10d::TCPStoreOptions options;
    options.port = port;
    options.isServer = is_server;
    // A client counts itself in, for a server in Python waits for all; it does not wait itself.
    options.numWorkers = 1;
    options.waitWorkers = !is_server;
    options.multiTenant = true;
    options.timeout = milliseconds(timeout_ms);
    *result = new StoreHandle(c10::make_intrusive<c10d::TCPStore>(host, options));
  });
}

// A connection of its own, for another thread.
char *ext_store_clone(const StoreHandle *store, StoreHandle **result) {
  return guarded([&] { *result = new StoreHandle((*store)->clone()); });
}

char *ext_store_with_prefix(const StoreHandle *store, const char *prefix, StoreHandle **result) {
  return guarded([&] { *result = new StoreHandle(c10::make_intrusive<c10d::PrefixStore>(prefix, *store)); });
}

void ext_store_free(StoreHandle *store) { delete store; }

char *ext_store_set(const StoreHandle *store, const char *key, const uint8_t *value, size_t length) {
  return guarded([&] { (*store)->set(key, std::vector<uint8_t>(value, value + length)); });
}

// Hands the value to `take`, for only the caller knows where it goes.
char *ext_store_get(const StoreHandle *store, const char *key, void *state,
                    void (*take)(void *state, const uint8_t *value, size_t length)) {
  return guarded([&] {
    const auto value = (*store)->get(key);
    take(state, value.data(), value.size());
  });
}

char *ext_store_add(const StoreHandle *store, const char *key, int64_t amount, int64_t *result) {
  return guarded([&] { *result = (*store)->add(key, amount); });
}

char *ext_store_check(const StoreHandle *store, const char *key, bool *result) {
  return guarded([&] { *result = (*store)->check({key}); });
}

char *ext_store_wait(const StoreHandle *store, const char *key, uint64_t timeout_ms) {
  return guarded([&] { (*store)->wait({key}, milliseconds(timeout_ms)); });
}

// Gloo for tensors on the CPU, and with `nccl` NCCL for those on CUDA. `address` is where this process listens:
// an interface's name or an address of this machine. The keys are those of torch.distributed, so that Python
// processes can join.
char *ext_group_new(const StoreHandle *store, int rank, int size, bool nccl, const char *address, bool is_interface,
                    uint64_t timeout_ms, GroupHandle **result) {
  return guarded([&] {
    const auto of_group =
        c10::make_intrusive<c10d::PrefixStore>("0/", c10::make_intrusive<c10d::PrefixStore>("default_pg", *store));
    auto group = c10::make_intrusive<c10d::ProcessGroup>(of_group, rank, size);

    auto options = c10d::ProcessGroupGloo::Options::create(milliseconds(timeout_ms));
    options->devices.push_back(is_interface ? c10d::ProcessGroupGloo::createDeviceForInterface(address)
                                            : c10d::ProcessGroupGloo::createDeviceForHostname(address));
    options->group_name = "0";
    const auto gloo = c10::make_intrusive<c10d::ProcessGroupGloo>(
        c10::make_intrusive<c10d::PrefixStore>("cpu/", of_group), rank, size, options);
    gloo->setSequenceNumberForGroup();
    group->setBackend(c10::DeviceType::CPU, c10d::ProcessGroup::BackendType::GLOO, gloo);
    auto fallback = c10d::ProcessGroup::BackendType::GLOO;
    if (nccl) {
#ifdef USE_C10D_NCCL
      auto nccl_options = c10d::ProcessGroupNCCL::Options::create();
      nccl_options->timeout = milliseconds(timeout_ms);
      nccl_options->group_name = "0";
      const auto backend = c10::make_intrusive<c10d::ProcessGroupNCCL>(
          c10::make_intrusive<c10d::PrefixStore>("cuda/", of_group), rank, size, nccl_options);
      backend->setSequenceNumberForGroup();
      group->setBackend(c10::DeviceType::CUDA, c10d::ProcessGroup::BackendType::NCCL, backend);
      fallback = c10d::ProcessGroup::BackendType::NCCL;
#else
      TORCH_CHECK(false, "this program was built without NCCL");
#endif
    }
    group->setDefaultBackend(fallback);
    group->setGroupName("0");
    *result = new GroupHandle(std::move(group));
  });
}

void ext_group_free(GroupHandle *group) { delete group; }

// In place. `op` is 0 for the sum, 1 for the largest.
char *ext_group_all_reduce(const GroupHandle *group, const at::Tensor *tensor, int op) {
  return guarded([&] {
    c10d::AllreduceOptions options;
    options.reduceOp = op == 0 ? c10d::ReduceOp::SUM : c10d::ReduceOp::MAX;
    std::vector<at::Tensor> tensors{*tensor};
    (*group)->allreduce(tensors, options)->wait();
  });
}

// In place, all tensors in buckets; what the first rank has goes to the others.
char *ext_group_broadcast(const GroupHandle *group, at::Tensor *const *tensors, size_t count, size_t bucket_bytes) {
  return guarded([&] {
    at::NoGradGuard no_grad;
    c10d::broadcast_coalesced(*group, list(tensors, count), bucket_bytes, 0);
  });
}

char *ext_reducer_new(const GroupHandle *group, at::Tensor *const *params, size_t count, size_t first_bucket_bytes,
                      size_t bucket_bytes, c10d::Reducer **result) {
  return guarded([&] {
    const auto tensors = list(params, count);
    const std::vector<bool> no_sparse(count, false);
    auto buckets = std::get<0>(
        c10d::compute_bucket_assignment_by_size(tensors, {first_bucket_bytes, bucket_bytes}, no_sparse));
    // Gradients arrive from the last parameter to the first.
    std::reverse(buckets.begin(), buckets.end());
    *result = new c10d::Reducer(tensors, std::move(buckets), *group, no_sparse, static_cast<int64_t>(bucket_bytes),
                                /*find_unused_parameters=*/false, /*gradient_as_bucket_view=*/true,
                                /*param_names=*/{}, static_cast<int64_t>(first_bucket_bytes),
                                /*skip_all_reduce_unused_params=*/false, /*use_python_reducer=*/false,
                                /*bucket_bytes_cap_list=*/{});
  });
}

char *ext_reducer_free(c10d::Reducer *reducer) {
  return guarded([&] { delete reducer; });
}

// Before the forward pass whose gradients are to be averaged.
char *ext_reducer_before_forward(c10d::Reducer *reducer) {
  return guarded([&] {
    reducer->prepare_for_forward();
    if (reducer->should_rebuild_buckets()) reducer->rebuild_buckets();
  });
}

char *ext_reducer_before_backward(c10d::Reducer *reducer, const at::Tensor *loss) {
  return guarded([&] { reducer->prepare_for_backward({*loss}); });
}

// As backward() of tch, with the error in libtorch's own words and no backtrace.
char *ext_backward(const at::Tensor *loss) {
  return guarded([&] { loss->backward(); });
}

} // extern "C"
