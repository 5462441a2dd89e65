//! Who may do what: the same script runs on the mount and on a local file system, as several users, and must say the
//! same.

/// What the scripts share: `as USER GROUP CODE` runs code as somebody else, `try NAME CODE...` says whether it works.
const PRELUDE: &str = r#"
umask 022
as() { setpriv --reuid "$1" --regid "$2" --clear-groups sh -c "$3"; }
try() { if as "$2" "$3" "$4" >/dev/null 2>&1; then echo "$1: yes"; else echo "$1: no"; fi; }
"#;

fn same_as_local(script: &str) {
    super::same_as_local("sh", &format!("{PRELUDE}\n{script}"));
}

#[test]
fn opening_by_mode_and_user() {
    same_as_local(
        r#"
        for bits in 0 2 4 6; do for class in u g o; do
            f=f-$bits-$class
            echo content > $f; chown 1001:2001 $f
            case $class in u) mode=${bits}00 who="1001 3000";; g) mode=0${bits}0 who="1002 2001";; o) mode=00$bits who="1002 3000";; esac
            chmod $mode $f
            try "$f read" $who "cat $f"
            try "$f append" $who ": >> $f"
            try "$f truncate" $who ": > $f"
            try "$f both" $who "dd if=/dev/null of=$f conv=notrunc; exec 3<> $f"
        done; done"#,
    );
}

#[test]
fn operations_in_directories_without_permission() {
    same_as_local(
        r#"
        for mode in 777 775 755 711 744 700; do
            d=d$mode; mkdir $d; mkdir $d/dir; echo x > $d/file; chown 1001 $d/file $d/dir
            echo y > mine$mode; chown 1001 mine$mode; chmod $mode $d
            for op in "mkdir $d/new" "mkfifo $d/fifo" "ln -s a $d/link" "ln mine$mode $d/hard" "mv $d/file $d/moved" \
                "mv mine$mode $d/in" "rm -f $d/moved" "rmdir $d/dir" "chmod 600 $d/file" "chown 1001:1001 $d/file" \
                "truncate -s 1 $d/file" "touch $d/file" "ls $d" "cat $d/file" "stat $d/file"; do
                try "$mode $op" 1001 1001 "$op"
            done
        done
        find . -printf '%p %M %U %G\n' | sort"#,
    );
}

#[test]
fn sticky_directories() {
    same_as_local(
        r#"
        for actor in 1001 1002 1003; do for kind in file dir; do for op in remove rename replace; do
            d=s-$actor-$kind-$op; mkdir $d; chown 1001 $d; chmod 1777 $d
            for name in a b; do
                if [ $kind = file ]; then echo x > $d/$name; else mkdir $d/$name; fi
                chown 1002 $d/$name
            done
            case $op in
                remove) code="rm -d $d/a";;
                rename) code="mv $d/a $d/c";;
                replace) code="mv -T $d/a $d/b";;
            esac
            try "$actor $kind $op" $actor $actor "$code"
            ls $d
        done; done; done"#,
    );
}

#[test]
fn changing_owners_and_modes() {
    same_as_local(
        r#"
        show() { stat -c '%n %a %u %g' "$1"; }
        for mode in 755 4755 2755 6755 2745 6711; do for change in 1001:1001 :1001 :2001 1002 1002:2001; do
            f=f-$mode-$change; echo x > $f; chown 1001:1001 $f; chmod $mode $f
            try "owner $f" 1001 1001 "chown $change $f"; show $f
            chown 1001:1001 $f; chmod $mode $f
            try "other $f" 1003 1003 "chown $change $f"; show $f
            chown $change $f; show $f
        done; done
        ln -s f-755-1002 link; chown -h 1002:2001 link; stat -c '%u %g' link
        for mode in 2755 2700 6755; do
            echo x > g$mode; chown 1001:2001 g$mode
            try "chmod $mode" 1001 1001 "chmod $mode g$mode"; show g$mode
            mkdir gd$mode; chown 1001:2001 gd$mode
            try "chmod $mode" 1001 1001 "chmod $mode gd$mode"; show gd$mode
        done
        member() { setpriv --reuid 1001 --regid 1001 --groups 2001,2002 "$@" 2>/dev/null && echo yes || echo no; }
        for change in :2001 1001:2002 :3001 1002:2001; do
            echo x > m$change; chown 1001:1001 m$change; chmod 6755 m$change
            member chown $change m$change; show m$change
        done
        for group in 2001 3001; do
            echo x > k$group; chown 1001:$group k$group; member chmod 2755 k$group; show k$group
        done"#,
    );
}

#[test]
fn privileges_fall_when_content_changes() {
    same_as_local(
        r#"
        for mode in 4777 2777 6777 2767; do for who in 1002 0; do
            for op in "echo y >> F" "truncate -s 1 F" "fallocate -l 100 F" "fallocate -p -o 0 -l 1 F" ": > F" "dd if=/dev/zero of=F bs=1 count=1 conv=notrunc"; do
                echo xxxx > F; chown 1001:2001 F; chmod $mode F
                as $who $who "$op" >/dev/null 2>&1 || echo failed
                echo "$mode $who $op: $(stat -c %a F)"; rm -f F
            done
        done; done"#,
    );
}

#[test]
fn groups_of_new_files_and_umask() {
    same_as_local(
        r#"
        mkdir sg; chown 0:2001 sg; chmod 2777 sg
        as 1001 1001 'umask 027; touch sg/f; mkdir sg/d; mkfifo sg/p; ln -s x sg/l; mkdir sg/d/e'
        find sg -printf '%p %m %U %G\n' | sort
        mkdir plain; chmod 777 plain
        as 1001 1001 'umask 077; touch plain/f; mkdir plain/d'
        find plain -printf '%p %m %U %G\n' | sort"#,
    );
}

#[test]
fn access_lists() {
    same_as_local(
        r#"
        echo x > f; chmod 640 f; setfacl -m u:1001:r,g:2001:rw f
        getfacl -cpn f; stat -c %a f
        try "user in list" 1001 1001 "cat f"; try "user writes" 1001 1001 "echo y >> f"
        try "group in list" 1005 2001 "echo y >> f"; try "others" 1006 1006 "cat f"
        chmod 600 f; getfacl -cpn f; try "masked" 1001 1001 "cat f"; chmod 660 f; getfacl -cpn f
        mkdir d; setfacl -d -m u:1001:rwx,g::rx,o::- d; getfacl -cpn d
        (umask 077; touch d/new; mkdir d/sub; touch d/sub/deep)
        for p in d/new d/sub d/sub/deep; do getfacl -cpn $p; stat -c %a $p; done
        setfacl -b f; getfacl -cpn f; setfacl -k d; getfacl -cpn d
        getfattr -d -m - f d 2>&1"#,
    );
}
