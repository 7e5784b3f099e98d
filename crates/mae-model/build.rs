//! Lets tests and doctests of this crate find libtorch where torch-ext found it.

fn main() {
    if std::env::var("CARGO_CFG_UNIX").is_ok() {
        let lib = std::env::var("DEP_TORCH_EXT_LIB").expect("torch-ext publishes `lib`");
        println!("cargo:rustc-link-arg=-Wl,-rpath,{lib}");
    }
}
