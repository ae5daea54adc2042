//! What is built: a real Debian, and a Containerfile of five steps that do to it what hurts a union filesystem. It owns the build context and knows
//! what must come out.

use std::fs;
use std::path::{Path, PathBuf};

use support::machine;

/// Create; delete and replace; change modes, owners, names and times; hard links, one with a lower file; dpkg.
const CONTAINERFILE: &str = r"FROM localhost/base
RUN mkdir -p /srv/app/deep && echo one >/srv/app/one && ln -s ../app/one /srv/app/link && mkfifo /srv/app/pipe && \
    truncate -s 1M /srv/app/sparse && echo changed >>/etc/issue
RUN rm -r /usr/share/common-licenses /etc/issue.net /srv/app/deep && echo file >/srv/app/deep && \
    rm /etc/debian_version && mkdir /etc/debian_version && echo in >/etc/debian_version/in && \
    rm -r /etc/cron.daily && mkdir /etc/cron.daily && echo new >/etc/cron.daily/new
RUN chmod 4711 /usr/bin/cat && chmod 700 /srv/app && chown 33:33 /etc/passwd && chmod 600 /etc/group && \
    mv /etc/profile /etc/profile.moved && mv /etc/skel /etc/skeleton && touch -d '2001-02-03 04:05:06 UTC' /etc/issue
RUN ln /usr/bin/dpkg /usr/bin/dpkg-too && ln /srv/app/one /srv/app/one-too && echo more >>/srv/app/one-too && \
    perl -e 'print qq(perl\n)'
COPY tool.deb /tmp/
RUN dpkg --install /tmp/tool.deb && rm /tmp/tool.deb && lamina-test
";

const CONTROL: &str = "Package: lamina-test
Version: 1
Architecture: all
Maintainer: Nobody <nobody@example.org>
Description: a package of the tests
";

/// Run in a container of what was built: fails where something is not as the steps left it.
pub const CHECK: &str = r#"set -eux
    test "$(cat /srv/app/link)" = "one
more"
    test "$(stat -c %h:%i /srv/app/one)" = "2:$(stat -c %i /srv/app/one-too)"
    test -p /srv/app/pipe
    test "$(stat -c %s /srv/app/sparse)" = 1048576
    test "$(tail -n 1 /etc/issue)" = changed
    test "$(stat -c %Y /etc/issue)" = 981173106
    for gone in /usr/share/common-licenses /etc/issue.net /etc/profile /etc/skel /tmp/tool.deb; do ! test -e $gone; done
    test "$(ls -A /etc/cron.daily /etc/debian_version)" = "/etc/cron.daily:
new

/etc/debian_version:
in"
    test "$(cat /srv/app/deep)" = file
    test "$(stat -c %a:%u:%g /usr/bin/cat /srv/app /etc/passwd /etc/group)" = "4711:0:0
700:0:0
644:33:33
600:0:0"
    test -e /etc/profile.moved; test -e /etc/skeleton/.bashrc
    cmp /usr/bin/dpkg /usr/bin/dpkg-too
    test "$(lamina-test)" = tool
    dpkg --verify lamina-test
    dpkg --audit"#;

/// The build context, in `dir`.
pub fn context(dir: &Path) -> PathBuf {
    let context = dir.join("context");
    machine::shell(&format!(
        "umask 022; cd {}; mkdir -p context package/DEBIAN package/usr/bin package/usr/share/lamina-test
         printf '#!/bin/sh\\necho tool\\n' >package/usr/bin/lamina-test; chmod 755 package/usr/bin/lamina-test
         echo data >package/usr/share/lamina-test/data",
        dir.display()
    ));
    fs::write(dir.join("package/DEBIAN/control"), CONTROL).expect("write");
    let (package, file) = (dir.join("package"), context.join("tool.deb"));
    machine::run(
        "dpkg-deb",
        &["--root-owner-group", "--build", package.to_str().expect("UTF-8"), file.to_str().expect("UTF-8")],
    );
    fs::write(context.join("Containerfile"), CONTAINERFILE).expect("write");
    context
}
