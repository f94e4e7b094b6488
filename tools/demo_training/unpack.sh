#!/usr/bin/env bash
# Unpacks the packages whose images the demo model is trained on; installs nothing:
#     bash tools/demo_training/unpack.sh FOLDER
# Needs pip, and apt of Debian 12 (bookworm), whose versions are named below.
set -euo pipefail
folder=${1:?usage: unpack.sh FOLDER}
here=$(cd "$(dirname "$0")" && pwd)
mkdir -p "$folder/debian/parts"
python -m pip install --quiet --no-deps --upgrade --target "$folder" -r "$here/packages.txt"
cd "$folder/debian/parts"
# Licences as the packages state them: GNOME's CC-BY-SA-3.0 and others for single files; MATE's GPL-2+ and CC-BY-SA-4.0;
# Plasma's GPL-2+; Lomiri's CC-BY-4.0, CC-BY-SA-3.0, CC-BY-SA-4.0 and CC0-1.0; UKUI's CC-BY-SA-3.0.
apt-get download gnome-backgrounds=43.1-1 mate-backgrounds=1.26.0-1 \
    plasma-workspace-wallpapers=4:5.27.5-2 lomiri-wallpapers-16.04=20.04.0-2 \
    lomiri-wallpapers-20.04=20.04.0-2 ukui-wallpapers=20.04.3-1.1
for part in ./*.deb; do dpkg-deb -x "$part" ..; done
