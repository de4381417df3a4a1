//! Files: T111, T112, T115, T127, T130, T132, and what a builder may rightly see.

use std::os::unix::fs::MetadataExt as _;

use super::{Jail, canary, ways};

#[tokio::test]
async fn the_tree_is_there_and_the_host_is_not() {
    for way in ways() {
        let mut jail = Jail::new(way);
        let task = jail.path("task/task.json").display().to_string();
        jail.env = vec![("AUTOPACK_TASK".to_owned(), task), ("SECRET".to_owned(), "x".to_owned())];
        assert_eq!(
            jail.says("pwd; cat file; cat $AUTOPACK_TASK; echo; id -u; hostname").await,
            "/ws\nof the tree{}\n1000\nap"
        );
        jail.refuses("test -e /home -o -e /root -o -e /sys -o -e /var -o -e /run/autopack-slots").await;
        assert_eq!(jail.says("ls /run/ap").await, "init\ntask");
        assert_eq!(jail.says("cat /etc/passwd | wc -l").await, "1");
        assert_eq!(
            jail.says("env | cut -d= -f1 | sort | tr '\\n' ' '").await,
            "AUTOPACK_TASK HOME LANG OLDPWD PATH PWD TERM TMPDIR".replace("OLDPWD ", "")
        );
        assert_eq!(jail.says("mkdir -p $HOME $TMPDIR/a && cd $HOME && pwd").await, "/tmp/home");
        for path in
            ["/etc/shadow", "/proc/1/environ", "/proc/1/root/etc/shadow", "/proc/kcore", "/dev/mem", "/run/ap/init/x"]
        {
            jail.refuses(&format!("cat {path}")).await;
        }
        let own = jail.path("own").display().to_string();
        jail.refuses(&format!("ls {own}")).await;
    }
}

#[tokio::test]
async fn what_is_written_is_the_workers_and_nothing_else_can_be() {
    for way in ways() {
        let jail = Jail::new(way);
        let outside = canary(jail.dir.path());
        jail.says("echo new > new; mkdir sub; mv file sub/moved; ln -s new link; chmod 755 new; rm link").await;
        let made = std::fs::metadata(jail.path("tree/new")).unwrap();
        assert_eq!((made.uid(), made.mode() & 0o777), (0, 0o755));
        assert_eq!(std::fs::read_to_string(jail.path("tree/sub/moved")).unwrap(), "of the tree");
        for script in [
            "echo x > /usr/x",
            "echo x > /etc/x",
            "echo x > /x",
            "echo x > /run/ap/x",
            "echo x > /run/ap/task/x",
            "echo x > /run/ap/task/task.json",
            "echo x > /dev/x",
            "rm -rf /run/ap/task/task.json",
            "chmod u+s new",
            "chmod g+s new",
            "mknod node b 8 0",
            "mknod node c 1 3",
            "mount -t tmpfs x /tmp",
            "umount /etc",
        ] {
            jail.refuses(script).await;
        }
        let outside = outside.display().to_string();
        for script in [
            format!("cat {outside}"),
            format!("echo x > {outside}"),
            format!("ln -s {outside} out; cat out"),
            format!("echo x > out; test -e {outside}"),
            format!("ln {outside} hard"),
            format!("cat /ws/../../../..{outside}"),
            format!("cat /proc/self/root{outside}"),
            format!("cat /proc/1/root{outside}"),
            format!("cat /proc/1/cwd/../..{outside}"),
        ] {
            jail.refuses(&script).await;
        }
        assert_eq!(std::fs::read_to_string(&outside).unwrap(), "outside");
    }
}

#[tokio::test]
async fn a_toolchain_is_read_and_not_poisoned() {
    for way in ways() {
        let cache = tempfile::tempdir().unwrap();
        let tool = canary(cache.path()).display().to_string();
        let jail = Jail::with(way, |config| config.readable = vec![cache.path().to_owned()]);
        assert_eq!(jail.says(&format!("cat {tool}")).await, "outside");
        jail.refuses(&format!("echo poison > {tool}")).await;
        jail.refuses(&format!("echo poison > {tool}.new")).await;
        jail.refuses(&format!("chmod 777 {tool}")).await;
        assert_eq!(std::fs::read_to_string(&tool).unwrap(), "outside");
    }
}

#[tokio::test]
async fn one_slot_cannot_read_what_is_of_another() {
    for way in ways() {
        let other = tempfile::tempdir().unwrap();
        let file = canary(other.path());
        std::fs::set_permissions(&file, std::os::unix::fs::PermissionsExt::from_mode(0o600)).unwrap();
        // Even where it were mounted by mistake.
        let jail = Jail::with(way, |config| config.readable = vec![other.path().to_owned()]);
        jail.refuses(&format!("cat {}", file.display())).await;
    }
}
