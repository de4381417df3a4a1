//! Compiles `proto/` without protoc.

use std::path::PathBuf;

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let files = ["run", "governance", "worker", "admin"].map(|name| format!("autopack/v1/{name}.proto"));
    let mut compiler = protox::Compiler::new(["../proto"])?;
    compiler.include_imports(true).include_source_info(true);
    compiler.open_files(&files)?;
    println!("cargo:rerun-if-changed=../proto");
    #[allow(clippy::disallowed_methods, reason = "cargo speaks to build scripts through the environment")]
    let out = PathBuf::from(std::env::var("OUT_DIR")?);
    std::fs::write(out.join("autopack_descriptor.bin"), compiler.encode_file_descriptor_set())?;
    tonic_prost_build::configure().compile_fds(compiler.file_descriptor_set())?;
    Ok(())
}
