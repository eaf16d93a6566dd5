# Packages of a newer Debian, unpacked into a folder and never installed. Sourced by the fetch-* scripts, which
# have `say` and `die`, and in `wanted` what a user of another system is told to install.
#
# They come from the Debian mirror this machine already uses; apt verifies them against Debian's archive keys.
# shellcheck shell=bash disable=SC2154
suite=trixie

# Sets arch, triplet and loader, or says why this is no machine for it.
debian_machine() {
  local tool
  for tool in apt-get dpkg dpkg-deb; do
    type -P $tool >/dev/null ||
      die "no $tool, so this is no Debian or Ubuntu: install $wanted with this system's package manager"
  done
  # shellcheck disable=SC2034 # its callers use them
  case $(dpkg --print-architecture) in
    amd64) arch=amd64 triplet=x86_64-linux-gnu loader=ld-linux-x86-64.so.2 ;;
    arm64) arch=arm64 triplet=aarch64-linux-gnu loader=ld-linux-aarch64.so.1 ;;
    *) die "$(dpkg --print-architecture) is neither amd64 nor arm64: build $wanted from source and put it on PATH" ;;
  esac
}

# debian_fetch FOLDER NAME PACKAGE…: their .deb files in FOLDER/debs. FOLDER is the caller's to remove.
debian_fetch() {
  local work=$1 name=$2 mirrors mirror keyring reason
  shift 2
  mapfile -t mirrors < <(apt-get indextargets --format "\$(REPO_URI) \$(RELEASE)" 'Created-By: Packages' \
    'Origin: Debian' 2>/dev/null | awk '$2 !~ /security/ && !seen[$1]++ { print $1 }')
  # Before the first `apt-get update` apt knows only addresses; one that is not Debian's will fail on its keys.
  if ((${#mirrors[@]} == 0)) && grep -qx 'ID=debian' /etc/os-release 2>/dev/null; then
    mapfile -t mirrors < <(apt-get --print-uris update 2>/dev/null |
      sed -nE "s#^'(.*)dists/[^']*/InRelease'.*#\1#p" | awk '!/security/ && !seen[$1]++')
  fi
  ((${#mirrors[@]})) || die "no Debian mirror among this machine's package sources: install $wanted$elsewhere"

  for keyring in /usr/share/keyrings/debian-archive-keyring.{gpg,pgp} ''; do
    if [[ -r $keyring ]]; then break; fi
  done
  [[ $keyring ]] || die "Debian's archive keys are missing: apt-get install debian-archive-keyring"

  chmod 755 "$work" # apt downloads as a user of its own, who must be able to read this
  mkdir -p "$work"/{lists,archives}/partial "$work/debs"
  : >"$work/status"
  local apt=(apt-get -qq -o "Dir::Etc::SourceList=$work/$suite.list" -o Dir::Etc::SourceParts=/dev/null
    -o Dir::Etc::Preferences=/dev/null -o Dir::Etc::PreferencesParts=/dev/null -o "APT::Default-Release=$suite"
    -o "Dir::State::Lists=$work/lists" -o "Dir::State::status=$work/status"
    -o "Dir::Cache=$work" -o "Dir::Cache::archives=$work/archives"
    -o "APT::Architecture=$arch" -o "APT::Architectures=$arch" -o APT::Update::Error-Mode=any
    -o Acquire::Retries=1 -o Acquire::http::Timeout=20 -o Acquire::https::Timeout=20
    -o Acquire::AllowInsecureRepositories=false -o Acquire::AllowWeakRepositories=false
    -o APT::Get::AllowUnauthenticated=false)

  say "fetching $name of Debian $suite for $arch"
  for mirror in "${mirrors[@]}"; do
    printf 'deb [arch=%s signed-by=%s target=Packages lang=none] %s %s main\n' \
      "$arch" "$keyring" "$mirror" "$suite" >"$work/$suite.list"
    if ("${apt[@]}" update && cd "$work/debs" && "${apt[@]}" download "$@") >"$work/log" 2>&1; then return; fi
  done
  reason=$(grep -m1 '^[EW]:' "$work/log" || tail -n1 "$work/log")
  if grep -qE 'NO_PUBKEY|KEYSIG|is not signed|signatures? (were|was) invalid' "$work/log"; then
    die "apt could not verify Debian's signature ($reason): update debian-archive-keyring"
  fi
  die "no $name from the Debian mirror ($reason): see that \`apt-get update\` works here, then run this again"
}
