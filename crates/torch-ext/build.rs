//! Compiles the C++ files against the libtorch that torch-sys found, and tells dependents where that is.

use std::env;
use std::path::PathBuf;

fn main() {
    if env::var_os("CARGO_FEATURE_DOC_ONLY").is_some() {
        return;
    }
    println!("cargo:rerun-if-changed=cpp");
    // torch-sys publishes the folder of libtorch's shared libraries.
    let lib = env::var("DEP_TCH_LIBTORCH_LIB").expect("torch-sys publishes `libtorch_lib`");
    let include = match env::var_os("LIBTORCH_INCLUDE") {
        Some(dir) => PathBuf::from(dir).join("include"),
        None => PathBuf::from(&lib).join("../include"),
    };

    let mut build = cc::Build::new();
    build
        .cpp(true)
        .file("cpp/torch_ext.cpp")
        .file("cpp/distributed.cpp")
        .define("USE_DISTRIBUTED", None)
        .define("USE_C10D_GLOO", None)
        // For Gloo's headers, which a libtorch installation lacks.
        .include("cpp")
        .include(&include)
        .include(include.join("torch/csrc/api/include"))
        .warnings(false);
    if env::var_os("CARGO_FEATURE_NCCL").is_some() {
        // NVIDIA's headers lie beside libtorch where set-up, or pip, has put them.
        let nvidia = PathBuf::from(&lib).join("../../nvidia");
        let nvidia = env::var_os("NVIDIA_DIR").map_or(nvidia, PathBuf::from);
        let headers = [
            ("cu13/include", "cuda_runtime.h"),
            ("cu13/include/cccl", "cuda/std/version"),
            ("nccl/include", "nccl.h"),
        ];
        for (folder, header) in headers {
            let folder = nvidia.join(folder);
            assert!(
                folder.join(header).exists(),
                "the feature nccl needs {header} in {}: install CUDA's libtorch with `cargo xtask setup --cuda`, \
                 or set NVIDIA_DIR to the folder that has cu13 and nccl in it",
                folder.display()
            );
            build.include(folder);
        }
        build.define("USE_C10D_NCCL", None);
    }
    println!("cargo:rerun-if-env-changed=NVIDIA_DIR");
    if env::var("CARGO_CFG_TARGET_ENV").as_deref() == Ok("msvc") {
        build.flag("/std:c++20").flag("/EHsc");
    } else {
        build
            .flag("-std=c++20")
            .define("_GLIBCXX_USE_CXX11_ABI", "1");
    }
    build.compile("torch_ext");

    println!("cargo:rustc-link-search=native={lib}");
    println!("cargo:rustc-link-lib=torch_cpu");
    println!("cargo:rustc-link-lib=c10");
    if env::var_os("CARGO_FEATURE_NCCL").is_some() {
        println!("cargo:rustc-link-lib=torch_cuda");
        println!("cargo:rustc-link-lib=c10_cuda");
    }
    // Dependents read this as DEP_TORCH_EXT_LIB and put it into the run path of what they link.
    println!("cargo:lib={lib}");
    if env::var("CARGO_CFG_UNIX").is_ok() {
        println!("cargo:rustc-link-arg=-Wl,-rpath,{lib}");
    }
}
