// Package docs holds the pages that explain: the problems, the states, and the
// claims that circulate. The files are the one source: linger explain shows them as
// they are.
package docs

import "embed"

// Pages are problems/SLUG.md, states/STATE.md and claims.md.
//
//go:embed problems/*.md states/*.md claims.md
var Pages embed.FS
