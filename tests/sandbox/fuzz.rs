//! T134: random system calls with random arguments, from inside. The host, the worker and the canaries are as before.
//! `AUTOPACK_TEST_FUZZ=60` does it for a minute.

use std::net::{TcpListener, UdpSocket};
use std::time::Duration;

use super::{Jail, canary, now, ways};

/// Forks children that make random calls for a moment each, and counts the calls that came back.
const CALLS: &str = r#"
use POSIX ();
srand($ARGV[0]);
my $until = time + 2;
my $buffer = "\0" x 65536;
my @odd = (0, 1, -1, 2, 3, 4, 0x7fffffff, -2147483648, 4096, 0xffff, 65537, 100, -100);
sub any { my $n = int rand 5; return $n == 0 ? int rand 64 : $n == 1 ? $odd[rand @odd] : $n == 2 ? int rand 2**31 : $buffer }
pipe(my $in, my $out);
while (time < $until) {
    my $child = fork;
    defined $child or next;
    if (!$child) {
        setpgrp(0, 0);
        close $in;
        for (1 .. 200) {
            my $number = int rand 470;
            # What only waits, ends or stops this one child is no attempt.
            next if grep { $number == $_ } (34, 60, 231, 130, 128, 61, 247, 62, 200, 234, 129, 297, 424);
            syscall($number, map { any() } 1 .. 1 + int rand 6);
            syswrite($out, "x");
        }
        POSIX::_exit(0);
    }
    select(undef, undef, undef, 0.05);
    kill 9, -$child, $child;
    waitpid($child, 0);
}
close $out;
my $calls = 0;
while (my $read = sysread($in, my $bytes, 65536)) { $calls += $read }
print "calls: $calls\n";
"#;

#[tokio::test]
async fn random_calls_reach_nothing() {
    #[expect(clippy::disallowed_methods, reason = "how long the test takes is said where it is started")]
    let seconds = std::env::var("AUTOPACK_TEST_FUZZ").ok().and_then(|text| text.parse().ok()).unwrap_or(5);
    let began = now();
    let mut calls = 0u64;
    let mut seed = u64::from(std::process::id());
    while began.elapsed() < Duration::from_secs(seconds) || (calls == 0 && began.elapsed() < Duration::from_secs(60)) {
        for way in ways() {
            let mut jail = Jail::new(way);
            jail.timeout = Duration::from_secs(20);
            let outside = canary(jail.dir.path());
            std::fs::write(jail.path("tree/calls.pl"), CALLS).unwrap();
            let (tcp, udp) = (TcpListener::bind("127.0.0.1:0").unwrap(), UdpSocket::bind("127.0.0.1:0").unwrap());
            tcp.set_nonblocking(true).unwrap();
            udp.set_nonblocking(true).unwrap();
            let names = std::fs::read_to_string("/proc/sys/kernel/hostname").unwrap();
            seed += 1;
            let report = jail.sh(&format!("exec perl calls.pl {seed}")).await;
            let said = report.tail.lines().find_map(|line| line.strip_prefix("calls: ")?.parse::<u64>().ok());
            calls += said.unwrap_or(0);
            assert_eq!(std::fs::read_to_string(&outside).unwrap(), "outside", "seed {seed}");
            assert_eq!(std::fs::read_to_string("/proc/sys/kernel/hostname").unwrap(), names, "seed {seed}");
            assert!(tcp.accept().is_err() && udp.recv(&mut [0u8; 8]).is_err(), "seed {seed}");
            // The next sandbox stands as if nothing had been.
            let after = Jail::new(None);
            assert_eq!(after.says("echo alive").await, "alive", "seed {seed}");
        }
    }
    assert!(calls > 500, "only {calls} calls came back: nothing was tried");
    println!("{calls} random calls in {:?}", began.elapsed());
}
