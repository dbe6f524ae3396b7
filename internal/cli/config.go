package cli

import (
	"errors"
	"fmt"
	"io/fs"
	"strconv"
	"strings"

	"github.com/knadh/koanf/parsers/yaml"
	"github.com/knadh/koanf/providers/file"
	"github.com/knadh/koanf/v2"
	"github.com/spf13/pflag"

	"linger/internal/diagnose"
)

// thresholdOptions are the flags that change thresholds. There is no
// configuration file that is read unasked: in an incident two people on two hosts
// must see the same.
type thresholdOptions struct {
	config string
	set    []string
	// services are those that the file names; load fills them in.
	services []string
}

func (o *thresholdOptions) add(flags *pflag.FlagSet) {
	flags.StringVar(&o.config, "config", "", "read thresholds and services from this YAML `FILE`")
	flags.StringArrayVar(&o.set, "threshold", nil, "set a threshold, `NAME=VALUE`; repeatable; see `linger thresholds`")
}

// load is the defaults, changed by the file, changed by the flags.
func (o *thresholdOptions) load() (diagnose.Thresholds, error) {
	t := diagnose.DefaultThresholds()
	if o.config != "" {
		if err := o.loadFile(&t); err != nil {
			return t, err
		}
	}
	for _, text := range o.set {
		name, value, err := parseThreshold(text)
		if err == nil {
			err = t.Set(name, value)
		}
		if err != nil {
			return t, usagef("see `linger thresholds`", "--threshold %s: %w", text, err)
		}
	}
	return t, nil
}

// parseThreshold reads NAME=VALUE.
func parseThreshold(text string) (name string, value float64, err error) {
	name, number, found := strings.Cut(text, "=")
	if !found || name == "" {
		return "", 0, errors.New("want NAME=VALUE")
	}
	if value, err = strconv.ParseFloat(number, 64); err != nil {
		return "", 0, fmt.Errorf("%q is no number", number)
	}
	return name, value, nil
}

// The sections of the configuration file.
const (
	section         = "thresholds"
	sectionServices = "services"
)

// loadFile reads a file such as
//
//	thresholds:
//	  port-exhaustion.warning-percent: 70
//	  close-wait-leak:
//	    sockets: 50
//	services: [8080, "10.0.0.1:443"]
//
// in which a name may be split at its dot. What linger does not know is an error:
// a threshold with a slip in its name must not pass in silence.
func (o *thresholdOptions) loadFile(t *diagnose.Thresholds) error {
	path := o.config
	const hint = "see `linger thresholds` for the names"
	k := koanf.New(".")
	if err := k.Load(file.Provider(path), yaml.Parser()); err != nil {
		var unread *fs.PathError
		if errors.As(err, &unread) {
			return usagef("`--config` takes a file that can be read", "--config %s: %w", path, unread.Err)
		}
		oneLine := strings.NewReplacer("\n  ", " ", "\n", " ") // of several errors each is indented
		return usagef("the file must be YAML", "--config %s: %s", path, oneLine.Replace(err.Error()))
	}
	values := k.All()
	keys := k.Keys() // sorted, so that of several errors the same one is told
	for _, key := range keys {
		if (key == section || key == sectionServices) && values[key] == nil {
			continue // all of its lines are comments
		}
		if key == sectionServices {
			list, ok := values[key].([]any)
			if !ok {
				return usagef("want a list such as `services: [8080, \"10.0.0.1:443\"]`", "--config %s: services is no list", path)
			}
			for _, service := range list {
				o.services = append(o.services, fmt.Sprint(service))
			}
			continue
		}
		name, found := strings.CutPrefix(key, section+".")
		if !found {
			return usagef("the sections are `"+section+":` and `"+sectionServices+":`", "--config %s: unknown key %q", path, key)
		}
		value, ok := number(values[key])
		if !ok {
			return usagef(hint, "--config %s: %s: %v is no number", path, name, values[key])
		}
		if err := t.Set(name, value); err != nil {
			return usagef("", "--config %s: %w", path, err)
		}
	}
	return nil
}

// number is the value of a YAML number.
func number(v any) (float64, bool) {
	switch v := v.(type) {
	case int:
		return float64(v), true
	case float64:
		return v, true
	}
	return 0, false
}
