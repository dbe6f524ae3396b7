// Package story is what is to be said, as data: parts, sections and items, each with
// its tone and with how much it matters, commands to copy, and numbers with their
// units. It decides every sentence and paints none: how wide a line is, which colour a
// tone has and what has to be left out are the business of a face. It reads nothing.
package story

import "time"

// Tone is what a text is, told by colour where there is any.
type Tone int

// The tones.
const (
	Plain Tone = iota
	Strong
	Faint
	ToCopy
	Critical
	Warning
	Info
	Fine
)

// Mark is the sign and word of a verdict.
type Mark struct {
	Sign rune
	Word Text
	Tone Tone
}

// signed makes one of a word of linger's own.
func signed(sign rune, word string, tone Tone) Mark { return Mark{sign, Clean(word), tone} }

var (
	markOK      = signed('✔', "OK", Fine)
	markUnknown = signed('?', "UNKNOWN", Warning)
)

// Headline is a verdict.
type Headline struct {
	Mark Mark
	Text Text
}

// Story is a document: a verdict, and what it rests on.
type Story struct {
	// Title is the verdict in a few words, for a page; Head says of what it is.
	Title Text
	Head  Head
	// Verdict is empty where the first part is one.
	Verdict Headline
	Parts   Group
	// Notes are parts that are only worth knowing.
	Notes Group
	// Sections belong to no part.
	Sections []Section
	// Lacks is what could not be read or judged, one item for each thing that is needed.
	Lacks Section
	// Counts end it.
	Counts []Item
}

// Head says of which host and instant a story is, and how large it is.
type Head struct {
	Host, Kernel Text
	At           time.Time
	Counts       []Text
}

// Group is several parts. Those that are not told one by one are told by Rest, all of
// them by Names.
type Group struct {
	Parts       []Part
	Rest, Names Text
}

// Part is what is said about one thing.
type Part struct {
	Rank  Rank
	Mark  Mark
	Title Text
	// Lead is the part in a sentence, Brief what is said of it where it is but a note.
	Lead, Brief Text
	Sections    []Section
	// Attached is a text to be copied as a whole, below all else.
	Attached Command
	// Related are parts that hang together with this one, and come below it.
	Related []Part
}

// Label names a section or an item.
type Label struct {
	// Short is for the margin, Long for a page.
	Short, Long string
	// Verb begins each item where there is no more than the margin's word.
	Verb string
}

// Section is a part's answer to one question.
type Section struct {
	Label Label
	// None is said where there are no items, if something has to be.
	None  Text
	Items []Item
	// Side: its items are short, and may stand side by side.
	Side bool
	// Again: it stands above already.
	Again bool
	// InALine are ways to say it in one line, to take the first that fits.
	InALine []Text
}

// Item is one thing to say.
type Item struct {
	Rank Rank
	// Until is from which rank on something else says it better; Always is never.
	Until Rank
	// Kind is what it is called where several of them are left out and counted.
	Kind *Noun
	// Again: it stands above already.
	Again bool

	Tone Tone
	// Name is what it is about, Where where that is.
	Name, Where Text
	Text        Text
	// Full is the whole of Text, told from rank FullFrom on; it is empty where Text is all.
	Full     Text
	FullFrom Rank

	// Of these it has one at most.
	Quantity *Quantity
	Bars     *Bars
	Way      *Way
	Command  Command
}

// Noun counts what is left out; both words are empty where the label says it.
type Noun struct{ One, Many string }

// Quantity is a number with its limit and unit, where it comes from, and the command
// that shows it.
type Quantity struct {
	Value  float64
	Limit  *float64 // nil where it has none
	Unit   Text
	Source Text
	Check  Command
}

// Bars are values over time, the latest last.
type Bars struct {
	Values     []float64
	From, To   Text
	Unit       Text
	LowerBound bool // there may have been more
}

// Way is a way to mend something: in words, by a command, for ever, and at what price.
type Way struct {
	Number int
	Title  Text
	// Change is in words; ChangeInFull is the whole of it.
	Change, ChangeInFull Text
	Examples             []Example
	Now                  Command
	Keep                 *Keep
	// Price is told from rank PricedAt on.
	Price    []Price
	PricedAt Rank
}

// Example is a line of a program.
type Example struct {
	Rank    Rank
	Program Text
	Line    Command
}

// Keep is what keeps a change over a boot.
type Keep struct {
	File Text
	Line Command
	// Same: the line is the command of now.
	Same bool
	Note Text
}

// Price is what a way frees, or costs, or stands on.
type Price struct {
	Rank Rank
	// Name leads Text on a line of its own. Inline is what is said of it among others,
	// Sentence on a page; both are empty for what is told by itself alone.
	Name             string
	Text             Text
	Inline, Sentence Text
}

// Rank says when there is room for something: what has a lower one is told first.
type Rank int

// The ranks, the most useful first. Always and Doubt are told of each part, whatever
// the room; Doubt is the first to go.
const (
	Always Rank = iota
	Doubt
	Heeding   // what else to heed where a setting is kept
	Acquitted // one suspect that the numbers acquit
	Frees     // what a way frees; its risk is always told with a command
	FarEnd
	History
	NotWhen // when to leave a way
	Named   // the names of the related parts
	Proved  // one number
	AcquittedMore
	Priced // the first way without a command with all this
	Air    // no item: an empty line after the verdict
	Related
	AcquittedThree
	SecondOwner
	InFull // all of a text, not its first sentence
	ProvedMore
	Examples
	DoubtMore
	WaysMore
	ProvedFour
	RelatedMore
	AcquittedAll // up to six
	PricedMore
	// Whole is all that a page tells; Finest is for who checks each number by hand.
	Whole
	Finest
	// Counted: what could not be read is only counted.
	Counted
)

// Needs is the rank that must have found room before it: of a list the items before
// come first.
func (r Rank) Needs() Rank {
	switch r {
	case AcquittedMore:
		return Acquitted
	case AcquittedThree:
		return AcquittedMore
	case AcquittedAll:
		return AcquittedThree
	case ProvedMore:
		return Proved
	case ProvedFour:
		return ProvedMore
	case PricedMore:
		return Priced
	case RelatedMore:
		return Related
	case DoubtMore:
		return Doubt
	}
	return Always
}

// Brief tells whether it is told of each of several parts.
func (r Rank) Brief() bool { return r == Always || r == Heeding || r == Frees || r == Named }
