#!/bin/sh
# Installs scout-agent from this checkout where its Debian package can't be used. Run it again to upgrade.
#
#   sudo sh deploy/pi/install.sh               install, or upgrade
#   sudo sh deploy/pi/install.sh --uninstall   take the program away; config and sales stay
#
# Everything is checked before anything is changed. The libraries are the locked ones, by their hashes.
set -eu

checkout=$(cd "$(dirname "$0")/../.." && pwd)
home=/opt/scout-agent
units="scout-agent.service scout-agent-provision.service"
space_needed_mib=250

say() { printf '==> %s\n' "$*"; }
problem() {
    printf 'install.sh: %s\n' "$*" >&2
    problems=$((problems + 1))
}

check_machine() {
    problems=0
    [ "$(id -u)" = 0 ] || problem "it needs root: sudo sh $0"
    if [ -x /usr/bin/dpkg-query ] && dpkg-query -W -f '${Status}' scout-agent 2>/dev/null | grep -q ' installed$'; then
        problem "the package scout-agent is installed already: upgrade that instead, or: sudo apt remove scout-agent"
    fi
    systemd=$(systemctl --version 2>/dev/null | sed -n '1s/systemd \([0-9]*\).*/\1/p')
    [ "${systemd:-0}" -ge 252 ] || problem "it needs systemd 252 or newer (Debian 12); this is ${systemd:-none}"
    check_python
    free=$(df -Pk /opt 2>/dev/null | awk 'NR == 2 { print int($4 / 1024) }')
    [ "${free:-0}" -ge "$space_needed_mib" ] ||
        problem "/opt has ${free:-no} MiB free, and $space_needed_mib are needed: make room"
    [ "$problems" = 0 ] || {
        printf 'install.sh: nothing was changed.\n' >&2
        exit 1
    }
}

check_python() {
    if [ ! -x /usr/bin/python3 ]; then
        problem "there is no /usr/bin/python3: sudo apt install python3 python3-venv"
        return
    fi
    # The processor may have 64 bits where the system on it has 32.
    told=$(/usr/bin/python3 -c 'import platform, struct, sys
print("%d.%d" % sys.version_info[:2], platform.machine(), struct.calcsize("P") * 8)')
    case "$told" in
    3.1[1-3]\ aarch64\ 64 | 3.1[1-3]\ x86_64\ 64) ;;
    *) problem "it needs Python 3.11 to 3.13 on a 64-bit aarch64 or x86_64 system; this is Python $told" ;;
    esac
    /usr/bin/python3 -c 'import ensurepip, venv' 2>/dev/null ||
        problem "Python can't make virtual environments: sudo apt install python3-venv"
}

install_program() {
    version=$(sed -n 's/^version = "\(.*\)"/\1/p' "$checkout/pyproject.toml")
    new="$home/$version-$(date -u +%Y%m%dT%H%M%SZ)-$$"
    say "Python libraries of requirements/agent.txt into $new"
    mkdir -p "$home"
    # What an installation that was cut left behind.
    find "$home" -mindepth 1 -maxdepth 1 -type d ! -path "$(readlink -e "$home/current" || true)" -exec rm -rf {} +
    /usr/bin/python3 -m venv "$new"
    "$new/bin/python" -m pip install --quiet --disable-pip-version-check --only-binary=:all: --no-deps \
        --require-hashes --requirement "$checkout/requirements/agent.txt"
    say "scout-agent $version itself"
    packages=$("$new/bin/python" -c 'import sysconfig; print(sysconfig.get_path("purelib"))')
    cp -r "$checkout/agent" "$checkout/wire" "$packages"
    mkdir "$packages/scout_edge-$version.dist-info"
    printf 'Metadata-Version: 2.1\nName: scout-edge\nVersion: %s\n' "$version" \
        >"$packages/scout_edge-$version.dist-info/METADATA"
    printf '#!%s/bin/python -I\nfrom agent.__main__ import main\n\nmain()\n' "$new" >"$new/bin/scout-agent"
    chmod 0755 "$new/bin/scout-agent"
    "$new/bin/python" -m compileall -q "$packages"
    "$new/bin/scout-agent" --version >/dev/null
    # Until here the old one was in place; from here on the new one is.
    old=$(readlink -e "$home/current" || true)
    ln -sfn "$new" "$home/current.new"
    mv -T "$home/current.new" "$home/current"
    mkdir -p /usr/local/bin
    ln -sfn "$home/current/bin/scout-agent" /usr/local/bin/scout-agent
}

install_service() {
    say "account scout-agent, /var/lib/scout-agent, and /var/lib/till/sales for the till"
    mkdir -p /etc/sysusers.d /etc/tmpfiles.d
    cp "$checkout/systemd/scout-agent.sysusers.conf" /etc/sysusers.d/scout-agent.conf
    cp "$checkout/deploy/pi/scout-agent.tmpfiles.conf" /etc/tmpfiles.d/scout-agent.conf
    systemd-sysusers /etc/sysusers.d/scout-agent.conf
    systemd-tmpfiles --create /etc/tmpfiles.d/scout-agent.conf
    say "services: $units"
    for unit in $units; do
        sed "s|/usr/bin/scout-agent|/usr/local/bin/scout-agent|" "$checkout/systemd/$unit" >"/etc/systemd/system/$unit"
    done
    mkdir -p /usr/share/doc/scout-agent
    cp "$checkout/config.example.toml" /usr/share/doc/scout-agent/
    # shellcheck disable=SC2086  # two units are two words
    systemctl --quiet enable $units
    if [ -d /run/systemd/system ]; then
        systemctl daemon-reload
        systemctl --no-block restart scout-agent.service
        systemctl --no-block start scout-agent-provision.service
    fi
}

forget_old_program() {
    if [ -n "$old" ] && [ "$old" != "$new" ]; then
        rm -rf "$old"
    fi
}

uninstall() {
    [ "$(id -u)" = 0 ] || {
        printf 'install.sh: it needs root: sudo sh %s --uninstall\n' "$0" >&2
        exit 1
    }
    say "stopping the services and removing the program"
    for unit in $units; do
        systemctl --quiet disable --now "$unit" 2>/dev/null || true
        rm -f "/etc/systemd/system/$unit"
    done
    systemctl daemon-reload || true
    rm -rf "$home" /usr/local/bin/scout-agent /usr/share/doc/scout-agent
    rm -f /etc/sysusers.d/scout-agent.conf /etc/tmpfiles.d/scout-agent.conf
    say "kept: /etc/scout-agent, /var/lib/scout-agent with all sales that wait, /var/lib/till"
}

case "${1:-}" in
"")
    check_machine
    install_program
    install_service
    forget_old_program
    if [ -e /etc/scout-agent/config.toml ]; then
        say "Done. The agent starts: scout-agent status"
    else
        say "Done. Next: sudo scout-agent enrol --server URL --code CODE"
    fi
    ;;
--uninstall) uninstall ;;
*)
    printf 'usage: sudo sh %s [--uninstall]\n' "$0" >&2
    exit 64
    ;;
esac
