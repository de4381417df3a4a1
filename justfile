# Everything the bar asks for: formatting, lints, tests, documentation examples
check:
    scripts/test

# Tests only; arguments go to nextest: `just test house_rules`
test *args:
    cargo nextest run --workspace {{args}}

# Format everything
fmt:
    cargo fmt --all

# Accept changed snapshots one by one
review:
    cargo insta review

# The main job on a scratch clone of this repository
demo:
    cargo run -q -- demo

# Measure: the verdict, then everything else beside its floors; arguments go to `autopack bench`
bench *args:
    cargo bench -p autopack-shared --bench evaluate
    cargo run -q --release -- bench {{args}}

# The embedded engine on this repository, until Ctrl-C
up:
    cargo run -q -- up
