//! Lets tests and doctests of this crate find libtorch where torch-ext found it.

fn main() {
    let is_linked = std::env::var_os("CARGO_FEATURE_DOC_ONLY").is_none();
    if is_linked && std::env::var("CARGO_CFG_UNIX").is_ok() {
        let lib = std::env::var("DEP_TORCH_EXT_LIB").expect("torch-ext publishes `lib`");
        println!("cargo:rustc-link-arg=-Wl,-rpath,{lib}");
    }
}
