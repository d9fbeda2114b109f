//! Builds the tokenizer and the reader of bundles of `../c`, and links ONNX Runtime's library.

use std::path::Path;
use std::process::Command;
use std::{env, fs};

const SOURCES: [&str; 8] =
    ["bert", "bpe", "bundle", "common", "json", "tokenizer", "unicode", "vocabulary"];

fn run(command: &mut Command) {
    let done = command.status();
    assert!(done.is_ok_and(|status| status.success()), "{command:?} failed");
}

fn main() {
    let out = env::var("OUT_DIR").unwrap();
    let mut objects = Vec::new();
    for name in SOURCES {
        let (source, object) = (format!("../c/{name}.c"), format!("{out}/{name}.o"));
        run(Command::new("cc").args(["-std=c11", "-O2", "-fPIC", "-c", &source, "-o", &object]));
        objects.push(object);
    }
    let archive = format!("{out}/libbundle.a");
    let _ = fs::remove_file(&archive);
    run(Command::new("ar").arg("crs").arg(&archive).args(&objects));
    let ort = env::var("ORT").expect("ORT names the folder of ONNX Runtime's library; see make");
    let library = ["libonnxruntime.so.1", "libonnxruntime.so", "libonnxruntime.dylib"]
        .map(|name| Path::new(&ort).join(name))
        .into_iter()
        .find(|path| path.is_file());
    let library = library.unwrap_or_else(|| panic!("{ort} has no library of ONNX Runtime"));
    println!("cargo:rustc-link-search=native={out}");
    println!("cargo:rustc-link-lib=static=bundle");
    println!("cargo:rustc-link-arg={}", library.display());
    println!("cargo:rustc-link-arg=-Wl,-rpath,{ort}");
    println!("cargo:rerun-if-env-changed=ORT");
    println!("cargo:rerun-if-changed=../c");
}
