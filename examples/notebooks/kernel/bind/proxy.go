package main

import (
	"fmt"
	"go/types"
	"strings"
)

// bindProxy declares a type by which a type that a cell declares can stand for the interface called name: gomacro fills its
// fields with the cell's methods. Interfaces that another package could not implement get none.
func (f *file) bindProxy(name string, t *types.Interface) {
	if t.NumMethods() == 0 || !namable(t) {
		return
	}
	proxy := "proxy_" + strings.NewReplacer("/", "_", ".", "_").Replace(f.pkg.Path()) + "_" + name
	f.proxies[name] = "r.TypeFor[" + proxy + "]()"
	fmt.Fprintf(&f.declarations, "\n// %s is a p.%s of the interpreter's.\ntype %s struct {\nObject any\n", proxy, name, proxy)
	for m := range t.Methods() {
		params, _ := f.params(m.Signature())
		fmt.Fprintf(&f.declarations, "%s_ func(%s) %s\n", m.Name(), strings.Join(append([]string{"object any"}, params...), ", "), f.results(m.Signature()))
	}
	f.declarations.WriteString("}\n")
	for m := range t.Methods() {
		params, args := f.params(m.Signature())
		give := ""
		if m.Signature().Results().Len() > 0 {
			give = "return "
		}
		fmt.Fprintf(&f.declarations, "\nfunc (p *%s) %s(%s) %s {\n%sp.%s_(%s)\n}\n", proxy, m.Name(), strings.Join(params, ", "),
			f.results(m.Signature()), give, m.Name(), strings.Join(append([]string{"p.Object"}, args...), ", "))
	}
}

// params declares the parameters of s, and passes them on.
func (f *file) params(s *types.Signature) (declared, passed []string) {
	n := s.Params().Len()
	for i := range n {
		name, t := fmt.Sprintf("a%d", i), s.Params().At(i).Type()
		if s.Variadic() && i == n-1 {
			declared = append(declared, name+" ..."+f.typeName(t.(*types.Slice).Elem()))
			name += "..."
		} else {
			declared = append(declared, name+" "+f.typeName(t))
		}
		passed = append(passed, name)
	}
	return declared, passed
}

func (f *file) results(s *types.Signature) string {
	var all []string
	for v := range s.Results().Variables() {
		all = append(all, f.typeName(v.Type()))
	}
	return "(" + strings.Join(all, ", ") + ")"
}

// typeName writes t, and imports what it names.
func (f *file) typeName(t types.Type) string {
	return types.TypeString(t, func(p *types.Package) string {
		if f.imports[p.Path()] == "" {
			f.imports[p.Path()] = fmt.Sprintf("p%d", len(f.imports))
		}
		return f.imports[p.Path()]
	})
}

// namable reports whether another package can write down t with all that it is made of.
func namable(t types.Type) bool {
	switch t := types.Unalias(t).(type) {
	case *types.Named:
		for a := range t.TypeArgs().Types() {
			if !namable(a) {
				return false
			}
		}
		o := t.Obj()
		return o.Pkg() == nil || o.Exported() && !strings.Contains("/"+o.Pkg().Path()+"/", "/internal/")
	case *types.Pointer:
		return namable(t.Elem())
	case *types.Slice:
		return namable(t.Elem())
	case *types.Array:
		return namable(t.Elem())
	case *types.Chan:
		return namable(t.Elem())
	case *types.Map:
		return namable(t.Key()) && namable(t.Elem())
	case *types.Signature:
		return namable(t.Params()) && namable(t.Results())
	case *types.Tuple:
		for v := range t.Variables() {
			if !namable(v.Type()) {
				return false
			}
		}
		return true
	case *types.Struct:
		for v := range t.Fields() {
			if !v.Exported() || !namable(v.Type()) {
				return false
			}
		}
		return true
	case *types.Interface:
		for m := range t.Methods() {
			if !m.Exported() || !namable(m.Signature()) {
				return false
			}
		}
		return true
	default:
		return true
	}
}
