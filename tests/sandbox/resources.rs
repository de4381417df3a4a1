//! Resources: T121 to T124, T135 and T136: what runs out runs out inside only.

use autopack_worker::process::ProcEnd;

use super::{Jail, ways};

#[tokio::test]
async fn memory_ends_inside() {
    for way in ways() {
        let jail = Jail::with(way, |config| config.bounds.memory = 128 << 20);
        let report = jail.sh("perl -e '$x = \"x\" x (300 << 20); print length $x'").await;
        assert_eq!(report.end, ProcEnd::OutOfMemory, "{report:?}");
        // Spread over processes it is the same memory, and /tmp counts too.
        let many = "for i in 1 2 3 4 5 6 7 8; do perl -e '$x = \"x\" x (32 << 20); sleep 3' & done; wait; exit 1";
        assert_eq!(jail.sh(many).await.end, ProcEnd::OutOfMemory);
        let report = jail.sh("dd if=/dev/zero of=/tmp/x bs=1M count=300; exit 1").await;
        assert_eq!(report.end, ProcEnd::OutOfMemory, "{report:?}");
    }
}

#[tokio::test]
async fn a_fork_bomb_stops() {
    for way in ways() {
        let mut jail = Jail::new(way);
        jail.timeout = std::time::Duration::from_secs(3);
        let report = jail.sh("bomb() { bomb | bomb & }; bomb; sleep 60").await;
        assert!(matches!(report.end, ProcEnd::Timeout | ProcEnd::Exit(_)), "{report:?}");
        assert!(report.tail.contains("fork"), "{report:?}");
        assert_eq!(jail.says("echo after").await, "after");
    }
}

#[tokio::test]
async fn disks_files_and_descriptors_end_inside() {
    for way in ways() {
        let jail = Jail::with(way, |config| {
            (config.tmp_bytes, config.tmp_files, config.file_bytes) = (8 << 20, 100, 16 << 20);
        });
        jail.refuses("dd if=/dev/zero of=/tmp/x bs=1M count=9 2>/dev/null").await;
        jail.refuses("for i in $(seq 200); do : > /tmp/f$i || exit 1; done").await;
        jail.refuses("trap '' XFSZ; dd if=/dev/zero of=x bs=1M count=17").await;
        jail.refuses("truncate -s 8E x").await;
        assert_eq!(jail.says("ulimit -n").await, "4096");
        jail.refuses("ulimit -n 100000").await;
    }
}

#[tokio::test]
async fn a_tree_ends_before_the_disk_does() {
    for way in ways() {
        let jail = Jail::with(way, |config| (config.tree_bytes, config.tree_files) = (64 << 20, 2_000));
        // In many files, for one file is bounded already.
        let bytes =
            "i=0; while :; do i=$((i+1)); dd if=/dev/zero of=fill$i bs=1M count=8 2>/dev/null; sleep 0.02; done";
        let report = jail.sh(bytes).await;
        assert!(matches!(&report.end, ProcEnd::Overfull(why) if why.contains("64 MiB")), "{report:?}");
        jail.says("rm -f fill*").await;
        let files = "mkdir many; i=0; while :; do i=$((i+1)); : > many/$i; done";
        let report = jail.sh(files).await;
        assert!(matches!(&report.end, ProcEnd::Overfull(why) if why.contains("2000 files")), "{report:?}");
        assert_eq!(std::fs::remove_dir_all(jail.path("tree/many")).ok(), Some(()));
        // What has no name any more takes up as much.
        let gone = r#"exec perl -e 'my @held; for (1 .. 1000) { open(my $f, ">", "gone") or die; unlink "gone";
            syswrite($f, "x" x (1 << 20)); push @held, $f; select(undef, undef, undef, 0.05) } sleep 60'"#;
        let report = jail.sh(gone).await;
        assert!(matches!(&report.end, ProcEnd::Overfull(_)), "{report:?}");
        assert_eq!(jail.says("echo after").await, "after");
    }
}

/// T136: a byte now and then is no reason to wait for ever.
#[tokio::test]
async fn a_trickle_of_words_ends_with_its_time() {
    for way in ways() {
        let mut jail = Jail::new(way);
        jail.timeout = std::time::Duration::from_secs(2);
        let report = jail.sh("while :; do printf x; sleep 0.1; done").await;
        assert_eq!(report.end, ProcEnd::Timeout);
        assert!((5..40).contains(&report.printed), "{report:?}");
    }
}

#[tokio::test]
async fn a_flood_of_words_is_read_and_dropped() {
    for way in ways() {
        let jail = Jail::new(way);
        let report = jail.sh("head -c 300000000 /dev/zero; echo end").await;
        assert_eq!(report.end, ProcEnd::Exit(0));
        assert!(report.truncated && report.printed > 300_000_000 && report.tail.len() < 10_000);
    }
}
