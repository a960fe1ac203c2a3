// Lint checks workflow files with Argo's own code, all files together and without a cluster, like
// `argo lint --offline`. The argo command itself cannot be built from its Go module, which lacks the UI.
package main

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"reflect"
	"regexp"
	"runtime/debug"

	"github.com/argoproj/argo-workflows/v4/cmd/argo/lint"
	"github.com/argoproj/argo-workflows/v4/pkg/apiclient"
	"github.com/argoproj/argo-workflows/v4/pkg/apis/workflow/v1alpha1"
)

const argo = "github.com/argoproj/argo-workflows/v4"

var kinds = []string{"workflows", "workflowtemplates", "cronworkflows"}

func main() {
	if err := lintFiles(os.Args[1:]); err != nil {
		fmt.Fprintln(os.Stderr, "error:", err)
		os.Exit(1)
	}
}

func lintFiles(files []string) error {
	fmt.Println("linted with Argo Workflows", version())
	if _, known := reflect.TypeFor[v1alpha1.Template]().FieldByName("PendingTimeout"); !known {
		fmt.Println("pendingTimeout is new in Argo 4.1: removed before linting")
		folder, err := os.MkdirTemp("", "lint")
		if err != nil {
			return err
		}
		defer os.RemoveAll(folder)
		if files, err = without(regexp.MustCompile(`(?m)^ *pendingTimeout:.*$`), files, folder); err != nil {
			return err
		}
	}
	ctx, client, err := apiclient.NewClientFromOptsWithContext(context.Background(),
		apiclient.Opts{Offline: true, OfflineFiles: files})
	if err != nil {
		return err
	}
	options := lint.LintOptions{Files: files, Strict: true, Printer: os.Stdout}
	return lint.RunLint(ctx, client, kinds, "simple", true, options)
}

// without copies files to a folder, removing what matches the pattern, and returns the copies.
func without(pattern *regexp.Regexp, files []string, folder string) ([]string, error) {
	copies := make([]string, len(files))
	for i, file := range files {
		text, err := os.ReadFile(file)
		if err != nil {
			return nil, err
		}
		copies[i] = filepath.Join(folder, filepath.Base(file))
		if err := os.WriteFile(copies[i], pattern.ReplaceAll(text, nil), 0o600); err != nil {
			return nil, err
		}
	}
	return copies, nil
}

func version() string {
	if build, ok := debug.ReadBuildInfo(); ok {
		for _, module := range build.Deps {
			if module.Path == argo {
				return module.Version
			}
		}
	}
	return "(unknown version)"
}
