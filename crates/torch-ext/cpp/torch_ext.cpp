// The libtorch calls that tch does not bind, but for those of distributed.cpp.

#include "guarded.h"

#include <ATen/CPUGeneratorImpl.h>
#include <ATen/Config.h>
#include <ATen/Context.h>
#include <ATen/autocast_mode.h>
#include <ATen/core/Tensor.h>
#include <ATen/ops/_amp_foreach_non_finite_check_and_unscale.h>
#include <ATen/ops/_foreach_add.h>
#include <ATen/ops/_foreach_norm.h>
#include <ATen/ops/_foreach_sub.h>
#include <ATen/ops/_fused_adamw.h>
#include <ATen/ops/empty_like.h>
#include <ATen/ops/linalg_vector_norm.h>
#include <ATen/ops/stack.h>
#include <c10/core/GradMode.h>
#include <torch/csrc/autograd/custom_function.h>
#include <torch/csrc/jit/api/module.h>
#include <torch/version.h>
#include <torch/csrc/jit/frontend/tracer.h>

#include <memory>
#include <string>
#include <vector>

#ifdef _WIN32
#include <windows.h>
#else
#include <dlfcn.h>
#endif

// MKL is a part of libtorch's library on Linux, with its functions in sight; its headers are not there.
#if AT_MKL_ENABLED() && defined(__linux__)
#define EXT_MKL
extern "C" {
void sgemm_(const char *transa, const char *transb, const int *m, const int *n, const int *k, const float *alpha,
            const float *a, const int *lda, const float *b, const int *ldb, const float *beta, float *c,
            const int *ldc);
int MKL_Set_Num_Threads_Local(int threads);
}
#endif

namespace {

// A function of the CUDA runtime, which a binary is not linked against.
template <typename Function> Function cuda_runtime(const char *name) {
#ifdef _WIN32
  void *symbol = reinterpret_cast<void *>(GetProcAddress(GetModuleHandleA("cudart64_13.dll"), name));
#else
  void *symbol = dlsym(RTLD_DEFAULT, name);
#endif
  if (symbol == nullptr) throw std::runtime_error("the CUDA runtime is not loaded");
  return reinterpret_cast<Function>(symbol);
}

void check_cuda(int error) {
  if (error != 0) throw std::runtime_error("CUDA error " + std::to_string(error));
}

std::vector<at::Tensor> list(at::Tensor *const *tensors, size_t count) {
  std::vector<at::Tensor> result;
  result.reserve(count);
  for (size_t i = 0; i < count; ++i) result.push_back(*tensors[i]);
  return result;
}

// The fused kernels walk raw memory: whatever they are given must have one layout.
void check_same_layout(const char *name, const at::Tensor &other, const at::Tensor &param, size_t i) {
  TORCH_CHECK_VALUE(other.defined(), name, " of parameter ", i, " is undefined");
  TORCH_CHECK_VALUE(other.layout() == at::kStrided, name, " of parameter ", i, " is not a strided tensor");
  TORCH_CHECK_VALUE(other.device() == param.device(), name, " of parameter ", i, " is on ", other.device(),
                    ", the parameter on ", param.device());
  TORCH_CHECK_VALUE(other.scalar_type() == param.scalar_type(), name, " of parameter ", i, " has dtype ",
                    other.scalar_type(), ", the parameter ", param.scalar_type());
  TORCH_CHECK_VALUE(other.sizes() == param.sizes(), name, " of parameter ", i, " has shape ", other.sizes(),
                    ", the parameter ", param.sizes());
  for (int64_t d = 0; d < param.dim(); ++d) {
    // The stride of a dimension of one element is never used, and libtorch leaves it at anything.
    TORCH_CHECK_VALUE(param.size(d) == 1 || other.stride(d) == param.stride(d), name, " of parameter ", i,
                      " has strides ", other.strides(), ", the parameter ", param.strides());
  }
}

void check_scalar(const char *name, const at::Tensor &scalar, const at::Tensor &param) {
  TORCH_CHECK_VALUE(scalar.defined() && scalar.scalar_type() == at::kFloat && scalar.numel() == 1 &&
                        scalar.device() == param.device(),
                    name, " must be one float32 on ", param.device());
}

// What Rust has computed and how it goes back: `backward` reads `saved` and writes one new tensor an input.
struct Computed {
  at::Tensor output;
  torch::autograd::variable_list intermediates;
  void *state;
  char *(*backward)(void *state, at::Tensor *const *saved, size_t saved_count, at::Tensor *grad, at::Tensor **grads);
  void (*drop)(void *state);

  ~Computed() { drop(state); }
};

struct ComputedFunction : torch::autograd::Function<ComputedFunction> {
  static at::Tensor forward(torch::autograd::AutogradContext *context, at::TensorList inputs,
                            std::shared_ptr<Computed> computed) {
    auto saved = inputs.vec();
    saved.insert(saved.end(), computed->intermediates.begin(), computed->intermediates.end());
    computed->intermediates.clear();
    context->save_for_backward(std::move(saved));
    context->saved_data["inputs"] = static_cast<int64_t>(inputs.size());
    context->saved_data["computed"] = c10::IValue::make_capsule(c10::make_intrusive<Holder>(computed));
    return std::move(computed->output);
  }

  static torch::autograd::variable_list backward(torch::autograd::AutogradContext *context,
                                                 torch::autograd::variable_list grad_outputs) {
    auto saved = context->get_saved_variables();
    std::vector<at::Tensor *> handles;
    for (at::Tensor &tensor : saved) handles.push_back(&tensor);
    const auto holder = context->saved_data["computed"].toCapsule();
    const auto &computed = *static_cast<const Holder *>(holder.get())->computed;
    std::vector<at::Tensor *> results(context->saved_data["inputs"].toInt(), nullptr);
    at::Tensor grad = grad_outputs[0].contiguous();
    char *text = computed.backward(computed.state, handles.data(), handles.size(), &grad, results.data());
    if (text != nullptr) {
      const std::string copy = text;
      std::free(text);
      throw std::runtime_error(copy);
    }
    torch::autograd::variable_list grads;
    for (at::Tensor *result : results) {
      grads.push_back(std::move(*result));
      delete result;
    }
    // One more for the argument that is no tensor.
    grads.emplace_back();
    return grads;
  }

private:
  struct Holder : torch::CustomClassHolder {
    explicit Holder(std::shared_ptr<Computed> computed) : computed(std::move(computed)) {}
    std::shared_ptr<Computed> computed;
  };
};

torch::jit::Module new_module(const char *name, const std::shared_ptr<torch::jit::CompilationUnit> &unit) {
  torch::jit::Module module(c10::QualifiedName("__torch__." + std::string(name)), unit, /*shouldMangle=*/true);
  // PyTorch's train() and eval() look for it.
  module.register_attribute("training", c10::BoolType::get(), false);
  return module;
}

// Puts a tensor where its dotted name says, into modules that are made on the way.
void register_tensor(torch::jit::Module module, const std::string &name, const at::Tensor &tensor, bool is_buffer,
                     const std::shared_ptr<torch::jit::CompilationUnit> &unit) {
  TORCH_CHECK_VALUE(!tensor.requires_grad(), name, " requires a gradient: freeze it before");
  size_t start = 0;
  for (size_t dot; (dot = name.find('.', start)) != std::string::npos; start = dot + 1) {
    const std::string part = name.substr(start, dot - start);
    if (!module.hasattr(part)) module.register_module(part, new_module("Part", unit));
    module = module.attr(part).toModule();
  }
  module.register_parameter(name.substr(start), tensor, is_buffer);
}

} // namespace

extern "C" {

void ext_free(char *text) { std::free(text); }

char *ext_message(const char *text, size_t length) { return message(std::string(text, length)); }

// The version that this was compiled for.
char *ext_built_version() { return message(TORCH_VERSION); }

// The version that was loaded; empty if it does not say so. It calls what every version has.
char *ext_loaded_version() {
  try {
    const std::string config = at::show_config(), key = "TORCH_VERSION=";
    const size_t start = config.find(key);
    if (start == std::string::npos) return message("");
    const size_t first = start + key.size();
    return message(config.substr(first, config.find_first_of(", \n", first) - first));
  } catch (...) {
    return message("");
  }
}

// Takes over `state`, and drops it whatever happens.
char *ext_with_backward(at::Tensor *output, at::Tensor *const *inputs, size_t input_count,
                        at::Tensor *const *intermediates, size_t intermediate_count, void *state,
                        decltype(Computed::backward) backward, decltype(Computed::drop) drop, at::Tensor **result) {
  return guarded([&] {
    auto computed = std::shared_ptr<Computed>(new Computed{*output, {}, state, backward, drop});
    computed->intermediates = list(intermediates, intermediate_count);
    // As a reference to a list: of a vector, libtorch would not see that there are tensors in it.
    const auto inputs_list = list(inputs, input_count);
    *result = new at::Tensor(ComputedFunction::apply(at::TensorList(inputs_list), computed));
  });
}

char *ext_autocast_state(int8_t device, bool *enabled, int8_t *dtype) {
  return guarded([&] {
    const auto type = static_cast<at::DeviceType>(device);
    *enabled = at::autocast::is_autocast_enabled(type);
    *dtype = static_cast<int8_t>(at::autocast::get_autocast_dtype(type));
  });
}

char *ext_autocast_enter(int8_t device, bool enabled, int8_t dtype) {
  return guarded([&] {
    const auto type = static_cast<at::DeviceType>(device);
    const auto scalar = static_cast<at::ScalarType>(dtype);
    // The cache of cast weights is not keyed by dtype.
    if (at::autocast::get_autocast_dtype(type) != scalar) at::autocast::clear_cache();
    at::autocast::set_autocast_enabled(type, enabled);
    at::autocast::set_autocast_dtype(type, scalar);
    at::autocast::increment_nesting();
  });
}

char *ext_autocast_exit(int8_t device, bool enabled, int8_t dtype) {
  return guarded([&] {
    const auto type = static_cast<at::DeviceType>(device);
    const auto scalar = static_cast<at::ScalarType>(dtype);
    const bool outermost = at::autocast::decrement_nesting() == 0;
    if (outermost || at::autocast::get_autocast_dtype(type) != scalar) at::autocast::clear_cache();
    at::autocast::set_autocast_enabled(type, enabled);
    at::autocast::set_autocast_dtype(type, scalar);
  });
}

char *ext_fused_adamw(at::Tensor *const *params, at::Tensor *const *grads, at::Tensor *const *exp_avgs,
                      at::Tensor *const *exp_avg_sqs, at::Tensor *const *steps, size_t count, double lr,
                      double beta1, double beta2, double eps, double weight_decay, at::Tensor *grad_scale,
                      at::Tensor *found_inf) {
  return guarded([&] {
    if (count == 0) return;
    at::NoGradGuard no_grad;
    for (size_t i = 0; i < count; ++i) {
      const at::Tensor &param = *params[i];
      TORCH_CHECK_VALUE(param.defined() && param.is_non_overlapping_and_dense(), "parameter ", i,
                        " is undefined or not dense");
      TORCH_CHECK_VALUE(param.device() == params[0]->device(), "parameter ", i, " is on ", param.device(),
                        ", parameter 0 on ", params[0]->device());
      check_same_layout("the gradient", *grads[i], param, i);
      check_same_layout("exp_avg", *exp_avgs[i], param, i);
      check_same_layout("exp_avg_sq", *exp_avg_sqs[i], param, i);
      check_scalar("the step count", *steps[i], param);
    }
    std::optional<at::Tensor> scale, inf;
    if (grad_scale != nullptr) {
      check_scalar("grad_scale", *grad_scale, *params[0]);
      scale = *grad_scale;
    }
    if (found_inf != nullptr) {
      check_scalar("found_inf", *found_inf, *params[0]);
      inf = *found_inf;
    }
    auto step_list = list(steps, count);
    at::_foreach_add_(step_list, 1);
    at::_fused_adamw_(list(params, count), list(grads, count), list(exp_avgs, count), list(exp_avg_sqs, count), {},
                      step_list, lr, beta1, beta2, weight_decay, eps, /*amsgrad=*/false, /*maximize=*/false, scale, inf);
    // A skipped update must not count for the bias correction.
    if (inf) at::_foreach_sub_(step_list, std::vector<at::Tensor>(count, inf->view_as(*steps[0])));
  });
}

char *ext_unscale(at::Tensor *const *grads, size_t count, at::Tensor *found_inf, at::Tensor *inv_scale) {
  return guarded([&] {
    if (count == 0) return;
    at::NoGradGuard no_grad;
    at::_amp_foreach_non_finite_check_and_unscale_(list(grads, count), *found_inf, *inv_scale);
  });
}

char *ext_total_norm(at::Tensor *const *tensors, size_t count, at::Tensor **result) {
  return guarded([&] {
    TORCH_CHECK_VALUE(count > 0, "the norm of no tensors is undefined");
    at::NoGradGuard no_grad;
    *result = new at::Tensor(at::linalg_vector_norm(at::stack(at::_foreach_norm(list(tensors, count), 2))));
  });
}

// A generator of its own, so that no other draw depends on this one, nor this one on any other.
char *ext_exponential(const at::Tensor *like, uint64_t seed, at::Tensor **result) {
  return guarded([&] {
    const at::Device device = like->device();
    at::Generator generator =
        device.is_cpu() ? at::Generator(at::detail::createCPUGenerator(seed))
                        : at::globalContext().getAcceleratorHooksInterface(device.type()).getNewGenerator(device.index());
    generator.set_current_seed(seed);
    at::NoGradGuard no_grad;
    *result = new at::Tensor(at::empty_like(*like).exponential_(1.0, generator));
  });
}

char *ext_clear_grads(at::Tensor *const *params, size_t count) {
  return guarded([&] {
    for (size_t i = 0; i < count; ++i) params[i]->mutable_grad().reset();
  });
}

char *ext_set_float32_matmul_precision(const char *precision) {
  return guarded([&] { at::globalContext().setFloat32MatmulPrecision(precision); });
}

bool ext_has_mkl() {
#ifdef EXT_MKL
  return true;
#else
  return false;
#endif
}

// c = a b + beta c, of row-major matrices, on the calling thread alone.
void ext_sgemm(int m, int n, int k, bool a_transposed, const float *a, int a_stride, bool b_transposed,
               const float *b, int b_stride, float beta, float *c, int c_stride) {
#ifdef EXT_MKL
  const float alpha = 1;
  const int before = MKL_Set_Num_Threads_Local(1);
  // To MKL, row-major matrices are the transposes of column-major ones: c^T = b^T a^T.
  sgemm_(b_transposed ? "T" : "N", a_transposed ? "T" : "N", &n, &m, &k, &alpha, b, &b_stride, a, &a_stride, &beta, c,
         &c_stride);
  MKL_Set_Num_Threads_Local(before);
#endif
}

// Sets `loaded`. A library that is not there is no error; one that is there and cannot be loaded is.
char *ext_load_cuda(bool *loaded) {
  return guarded([&] {
#ifdef _WIN32
    *loaded = LoadLibraryA("torch_cuda.dll") != nullptr;
#else
    *loaded = dlopen("libtorch_cuda.so", RTLD_NOW | RTLD_GLOBAL) != nullptr;
    if (*loaded) return;
    const char *reason = dlerror();
    const std::string text = reason != nullptr ? reason : "unknown reason";
    if (text.rfind("libtorch_cuda.so:", 0) != 0) throw std::runtime_error(text);
#endif
  });
}

// Asks the CUDA runtime by name: its headers are not part of a libtorch installation.
char *ext_cuda_compute_capability(int device, int *major, int *minor) {
  return guarded([&] {
    const auto attribute = cuda_runtime<int (*)(int *, int, int)>("cudaDeviceGetAttribute");
    const int major_id = 75, minor_id = 76; // cudaDevAttrComputeCapabilityMajor and Minor
    check_cuda(attribute(major, major_id, device));
    check_cuda(attribute(minor, minor_id, device));
  });
}

// Bytes of a device that nobody has taken, and all of them.
char *ext_cuda_memory(int device, size_t *free_bytes, size_t *total_bytes) {
  return guarded([&] {
    const auto get_device = cuda_runtime<int (*)(int *)>("cudaGetDevice");
    const auto set_device = cuda_runtime<int (*)(int)>("cudaSetDevice");
    const auto memory = cuda_runtime<int (*)(size_t *, size_t *)>("cudaMemGetInfo");
    int before = 0;
    check_cuda(get_device(&before));
    check_cuda(set_device(device));
    const int error = memory(free_bytes, total_bytes);
    check_cuda(set_device(before));
    check_cuda(error);
  });
}

// `forward` is given the input and makes a new tensor, or gives a message.
char *ext_save_traced(const char *path, const char *class_name, const char *const *names, at::Tensor *const *tensors,
                      const bool *is_buffer, size_t tensor_count, const char *const *keys, const char *const *values,
                      size_t attribute_count, at::Tensor *input, void *state,
                      char *(*forward)(void *state, at::Tensor *input, at::Tensor **output)) {
  return guarded([&] {
    at::NoGradGuard no_grad;
    auto unit = std::make_shared<torch::jit::CompilationUnit>();
    torch::jit::Module module = new_module(class_name, unit);
    for (size_t i = 0; i < tensor_count; ++i) register_tensor(module, names[i], *tensors[i], is_buffer[i], unit);
    for (size_t i = 0; i < attribute_count; ++i) {
      module.register_attribute(keys[i], c10::StringType::get(), std::string(values[i]));
    }
    const auto record = [&](torch::jit::Stack inputs) -> torch::jit::Stack {
      at::Tensor given = inputs.at(0).toTensor();
      at::Tensor *output = nullptr;
      char *text = forward(state, &given, &output);
      if (text != nullptr) {
        const std::string copy = text;
        std::free(text);
        throw std::runtime_error(copy);
      }
      const std::unique_ptr<at::Tensor> owned(output);
      return {*owned};
    };
    const auto no_name = [](const at::Tensor &) { return std::string(); };
    // Tensors of `module` become its attributes in the graph, not constants, because it is given here.
    const auto traced = torch::jit::tracer::trace({*input}, record, no_name, /*strict=*/true,
                                                  /*force_outplace=*/false, &module, {"images"});
    const c10::QualifiedName method(*module.type()->name(), "forward");
    module.type()->addMethod(unit->create_function(method, traced.first->graph));
    module.save(path);
  });
}

} // extern "C"
