#!/bin/sh
# Puts ReDoc into wine_api/static/vendor/redoc, from which /redoc serves it.
#
# To update: set VERSION and INTEGRITY (npm view redoc@VERSION version dist.integrity), run this, look at /redoc, and
# run the browser tests. Why not 3.x: see wine_api/static/vendor/redoc/README.md.
set -eu

VERSION=2.5.4
INTEGRITY=sha512-M6jWhG1qoBnH6TFmzJnstyCZ87HmOY/UzDm78mHiYihEdlV/YcS9ogOo1NlElnJMeLsyxHFe2yFc4sNjHTrABQ==

TARGET=$(dirname "$0")/../wine_api/static/vendor/redoc
WORK=$(mktemp -d)
trap 'rm -rf "$WORK"' EXIT

npm pack --silent --pack-destination "$WORK" "redoc@$VERSION" >/dev/null
archive=$WORK/redoc-$VERSION.tgz
found=sha512-$(openssl dgst -sha512 -binary "$archive" | openssl base64 -A)
test "$found" = "$INTEGRITY" || { echo "redoc-$VERSION.tgz is not what INTEGRITY says: $found" >&2; exit 1; }
tar -xzf "$archive" -C "$WORK"
bundle=$WORK/package/bundles/redoc.standalone.js

# The only changes: its logo is not fetched from another host (an empty image, which it then hides), and browsers'
# developer tools are not told of a source map that is not here.
LOGO=https://cdn.redoc.ly/redoc/logo-mini.svg
test "$(grep -o "$LOGO" "$bundle" | wc -l)" -eq 1 || { echo "the logo is not where it was: look at $bundle" >&2; exit 1; }
mkdir -p "$TARGET"
sed -e "s|$LOGO|data:,|" -e '$s|^//# sourceMappingURL=redoc\.standalone\.js\.map$||' "$bundle" >"$TARGET/redoc.standalone.js"
cp "$WORK/package/LICENSE" "$WORK/package/bundles/redoc.standalone.js.LICENSE.txt" "$TARGET/"

cat >"$TARGET/VERSION" <<END
redoc $VERSION
package $INTEGRITY
sha256 $(openssl dgst -sha256 -r "$bundle" | cut -d' ' -f1) bundles/redoc.standalone.js of the package
sha256 $(openssl dgst -sha256 -r "$TARGET/redoc.standalone.js" | cut -d' ' -f1) redoc.standalone.js as served
END
cat "$TARGET/VERSION"
