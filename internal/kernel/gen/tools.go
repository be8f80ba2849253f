//go:build tools

package gen

import _ "github.com/mmcloughlin/avo/build"
